/* SHA-512 and ed25519, from implementations that others have looked at: see sources.py. */
#ifndef CRYPTO_H
#define CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crypto_hash_sha512.h"

enum { DIGEST = 64, SIGNATURE = 64, KEY = 32 };

typedef crypto_hash_sha512_state digest_state;

void digest_start(digest_state *state);
void digest_add(digest_state *state, const void *data, size_t size);
void digest_end(digest_state *state, uint8_t digest[DIGEST]);

/* whether `signature` is that of `message` by the owner of `key` */
bool signature_fits(const uint8_t signature[SIGNATURE], const uint8_t key[KEY], const void *message, size_t size);

/* compares without telling by its time where the difference is */
bool same(const void *one, const void *other, size_t size);

#endif
