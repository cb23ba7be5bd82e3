/* The way from our names to those of libsodium (SHA-512) and Monocypher (curve of ed25519). */
#include "crypto.h"

#include "monocypher.h"
#include "utils.h"

/* libsodium's SHA-512 wipes its memory with this function, which lies in a part that we leave out */
void sodium_memzero(void *const memory, const size_t size) {
    crypto_wipe(memory, size);
}

void digest_start(digest_state *state) {
    crypto_hash_sha512_init(state);
}

void digest_add(digest_state *state, const void *data, size_t size) {
    crypto_hash_sha512_update(state, data, size);
}

void digest_end(digest_state *state, uint8_t digest[DIGEST]) {
    crypto_hash_sha512_final(state, digest);
}

bool signature_fits(const uint8_t signature[SIGNATURE], const uint8_t key[KEY], const void *message, size_t size) {
    /* RFC 8032, 5.1.7: the hash of R, key and message, modulo the order of the group */
    uint8_t digest[DIGEST], scalar[32];
    digest_state state;
    digest_start(&state);
    digest_add(&state, signature, 32);
    digest_add(&state, key, KEY);
    digest_add(&state, message, size);
    digest_end(&state, digest);
    crypto_eddsa_reduce(scalar, digest);
    return crypto_eddsa_check_equation(signature, key, scalar) == 0;
}

bool same(const void *one, const void *other, size_t size) {
    const uint8_t *a = one, *b = other;
    uint8_t difference = 0;
    while (size--) {
        difference |= *a++ ^ *b++;
    }
    return difference == 0;
}
