/* What the other side of the link may see of the controller's records between steps, and alter, where it has no debugger.
 *
 * READ: record, first byte, number of bytes (at most PEEK_MOST) -> these. WRITE: record, first byte, then the bytes; only
 * the state, and only in step with a host. SUMS: record -> the CRC-32 of each PEEK_BLOCK bytes of it.
 */
#ifndef PEEK_H
#define PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"

enum { PEEK_READ = 7, PEEK_WRITE = 8, PEEK_SUMS = 9 };
enum { PEEK_MOST = 4096, PEEK_BLOCK = 1024 };

/* why it is refused: the reasons of main.c, and one more */
enum { PEEK_NOT_KNOWN = 1, PEEK_WRONG_LENGTH = 2, PEEK_NOT_STARTED = 3, PEEK_NOT_WRITABLE = 5 };

typedef struct {
    const void *data;
    size_t size;
    uint32_t refusal; /* 0: it is answered with the data */
} peek_answer;

/* `started`: in step with a host */
peek_answer peek(const link_frame *frame, bool started);

#endif
