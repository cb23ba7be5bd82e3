/* Images in MCUboot's format: may this one run here? */
#ifndef IMAGE_H
#define IMAGE_H

#include <stdint.h>

#include "port.h"

/* numbers go over the wire: add to the end */
typedef enum {
    IMAGE_GOOD = 0,
    IMAGE_ABSENT = 1,    /* the slot does not start with an image */
    IMAGE_MALFORMED = 2, /* lengths or TLVs that cannot be */
    IMAGE_TOO_LARGE = 3, /* it does not end within the slot */
    IMAGE_OTHER_KEY = 4, /* signed with another key */
    IMAGE_CHANGED = 5,   /* its hash is another than it says */
    IMAGE_FORGED = 6,    /* the signature is not that of its hash */
    IMAGE_OTHER_SLOT = 7,
    IMAGE_OTHER_BOARD = 8,
    IMAGE_OTHER_LAYOUTS = 9,
    IMAGE_OLDER = 10,    /* its security counter is smaller than that of an image that was confirmed */
    IMAGE_UNREADABLE = 11, /* the flash reports an error */
} image_verdict;

typedef struct {
    uint32_t version[4]; /* major, minor, revision, build */
    uint32_t counter;
    uint32_t start; /* address of the program */
    uint32_t size;  /* of the whole image */
    uint8_t config[PORT_HASH], layouts[PORT_HASH];
    char board[PORT_BOARD];
    uint8_t digest[64]; /* SHA-512, by which it is known */
} image_facts;

/* Checks the image in a slot from end to end; it may have no smaller security counter than `counter`. `facts` are valid
 * where the image is good. */
image_verdict image_check(uint32_t slot, uint32_t counter, image_facts *facts);

#endif
