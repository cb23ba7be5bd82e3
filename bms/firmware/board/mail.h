/* The link in memory that somebody else sees, too, such as an emulator's host: it leaves and fetches the bytes there, and
 * what else connects the two only rings. Linker scripts say where that is: `link_mail`.
 */
#ifndef MAIL_H
#define MAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* the other side uses it, and nothing else */
bool mail_used(void);

/* a byte that was left, or false */
bool mail_receive(uint8_t *byte);

/* takes what there is room for, and returns how much that was */
size_t mail_send(const uint8_t *data, size_t size);

/* there is mail that the other side has to be told of, once */
bool mail_to_tell(void);

#endif
