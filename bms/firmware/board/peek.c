/* Looking at records: see peek.h. */
#include "peek.h"

#include <string.h>

#include "control.h"

#define MOST_BLOCKS (1u + (RACKBMS_CONFIG_SIZE + RACKBMS_CONFIG_STATE_SIZE) / PEEK_BLOCK)

static peek_answer refused(uint32_t reason) {
    const peek_answer answer = {NULL, 0, reason};
    return answer;
}

static peek_answer sums(const uint8_t *record, uint32_t size) {
    static uint32_t found[MOST_BLOCKS];
    uint32_t count = 0;
    for (uint32_t at = 0; at < size; at += PEEK_BLOCK) {
        found[count++] = link_crc(0, record + at, size - at < PEEK_BLOCK ? size - at : PEEK_BLOCK);
    }
    const peek_answer answer = {found, count * sizeof found[0], 0};
    return answer;
}

peek_answer peek(const link_frame *frame, bool started) {
    const uint32_t words = frame->kind == PEEK_READ ? 3 : frame->kind == PEEK_WRITE ? 2 : 1;
    uint32_t asked[3] = {0}, size;
    if (frame->kind < PEEK_READ || frame->kind > PEEK_SUMS) {
        return refused(PEEK_NOT_KNOWN);
    }
    if (frame->length < words * sizeof asked[0] || (frame->kind != PEEK_WRITE && frame->length > words * sizeof asked[0])) {
        return refused(PEEK_WRONG_LENGTH);
    }
    memcpy(asked, frame->content, words * sizeof asked[0]);
    uint8_t *record = control_record(asked[0], &size);
    if (frame->kind == PEEK_SUMS) {
        return record ? sums(record, size) : refused(PEEK_WRONG_LENGTH);
    }
    const uint32_t first = asked[1], count = frame->kind == PEEK_READ ? asked[2] : frame->length - 8;
    if (count > PEEK_MOST || first > size || count > size - first) {
        return refused(PEEK_WRONG_LENGTH);
    }
    peek_answer answer = {record + first, count, 0};
    if (frame->kind == PEEK_WRITE) {
        if (asked[0] != CONTROL_STATE) {
            return refused(PEEK_NOT_WRITABLE);
        }
        if (!started) {
            return refused(PEEK_NOT_STARTED);
        }
        memcpy(record + first, frame->content + 8, count);
        answer.size = 0;
    }
    return answer;
}
