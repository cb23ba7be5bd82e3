/* What the boot loader asks of a board. A port to another board is this table, these functions, and no more. */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PORT_SLOTS = 2, PORT_WRITE_LARGEST = 32, PORT_HASH = 8, PORT_BOARD = 16, PORT_CRASH = 8 };

typedef struct {
    /* the flash, which reads 0xFF where it is erased; all in bytes */
    uint32_t sector_size; /* what is erased at once */
    uint32_t write_size;  /* what is written at once, and once only after it was erased; up to PORT_WRITE_LARGEST */
    uint32_t slot_size;   /* whole sectors */
    uint32_t slots[PORT_SLOTS]; /* where the images lie */
    uint32_t records[2];        /* two sectors for what the boot loader remembers */
    /* what an image must be, to be started here */
    uint8_t image_key[32];        /* public key of ed25519, of whoever may sign images */
    uint8_t access_key[32];       /* the same, of whoever may send one */
    uint8_t layouts[PORT_HASH];   /* hash of all layouts of records */
    char board[PORT_BOARD];       /* name, filled up with zeros */
} port_facts;

extern const port_facts *const port;

/* false where the flash reports an error */
bool port_read(uint32_t address, void *to, size_t size);
bool port_erase(uint32_t address); /* one sector */
bool port_write(uint32_t address, const void *from, size_t size); /* whole units of `write_size` */

/* what the last crash has left, in words; false where there was none */
bool port_crash(uint32_t words[PORT_CRASH]);

#endif
