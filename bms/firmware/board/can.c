/* The profile's frames: see can.h. */
#include "can.h"

#include <string.h>

#include "rackbms_config.h"

enum { FRAME = 8, MAX_STEP = 7, NO_COUNTER = 255 };

#define NAN_BITS 0x7FC00000u
#define ROUNDS 6755399441055744.0 /* 1.5 * 2^52: a number within 2^51 added to it stands rounded in the lowest bits */

static struct {
    uint8_t image[RACKBMS_CAN_IN_ROWS][FRAME];
    double arrived_s[RACKBMS_CAN_IN_ROWS];
    bool came[RACKBMS_CAN_IN_ROWS];
    uint8_t counter[RACKBMS_CAN_IN_ROWS];
    uint32_t expected; /* row of the next frame, if they come in their order */
    can_counts counts;
    double newest_s;         /* when the last good frame came */
    uint32_t seen;           /* good frames at the last `can_measure` */
    uint64_t sample;         /* number of the sample then */
    bool sampled;
} in;

static struct {
    uint8_t image[RACKBMS_CAN_OUT_ROWS][FRAME];
    uint8_t counter[RACKBMS_CAN_OUT_ROWS];
} out;

/* of the frames that came, at the time of a measurement */
static float age_s[RACKBMS_CAN_IN_ROWS];
static bool late[RACKBMS_CAN_IN_ROWS];

void can_start(void) {
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    for (uint32_t k = 0; k < RACKBMS_CAN_OUT_ROWS; k++) {
        out.counter[k] = (uint8_t)(can_out_rows[k].counter_values - 1); /* the first one has 0 */
    }
    can_forget_counters();
}

void can_forget_counters(void) {
    memset(in.counter, NO_COUNTER, sizeof in.counter);
}

/* ------------------------------------------------------------------------------------------------------- protection */

/* CRC-8 SAE J1850 over the identifier's two low bytes and all of the frame but the CRC itself */
static uint8_t crc_of(const can_row *row, const uint8_t *data) {
    uint8_t crc = can_crc_table[0xFF ^ (row->key & 0xFF)];
    crc = can_crc_table[crc ^ (row->key >> 8 & 0xFF)];
    for (uint32_t k = 0; k < row->length; k++) {
        if (k != row->crc_at) {
            crc = can_crc_table[crc ^ data[k]];
        }
    }
    return crc ^ 0xFF;
}

static can_verdict guarded(uint32_t number, const uint8_t *data) {
    const can_row *row = &can_in_rows[number];
    if (row->crc_at != CAN_NO_CRC && crc_of(row, data) != data[row->crc_at]) {
        return CAN_WRONG_CRC;
    }
    const uint8_t counter = data[row->counter_at] >> row->counter_shift & 15, last = in.counter[number];
    if (counter >= row->counter_values) {
        return CAN_OUT_OF_SEQUENCE;
    }
    in.counter[number] = counter;
    if (last == NO_COUNTER) {
        return CAN_ACCEPTED;
    }
    const uint32_t step = ((uint32_t)counter + row->counter_values - last) % row->counter_values;
    if (step == 0) {
        return CAN_REPEATED;
    }
    if (step > MAX_STEP) {
        return CAN_OUT_OF_SEQUENCE;
    }
    in.counts.lost += step - 1;
    return CAN_ACCEPTED;
}

static can_verdict judged(uint32_t key, const uint8_t *data, size_t length, double now_s) {
    uint32_t number = in.expected;
    for (uint32_t k = 0; can_in_rows[number].key != key; k++) {
        if (k == RACKBMS_CAN_IN_ROWS) {
            return CAN_UNKNOWN;
        }
        number = number + 1 < RACKBMS_CAN_IN_ROWS ? number + 1 : 0;
    }
    in.expected = number + 1 < RACKBMS_CAN_IN_ROWS ? number + 1 : 0;
    if (length != can_in_rows[number].length) {
        return CAN_WRONG_LENGTH;
    }
    const can_verdict verdict = can_in_rows[number].is_protected ? guarded(number, data) : CAN_ACCEPTED;
    if (verdict == CAN_ACCEPTED) {
        memcpy(in.image[number], data, length);
        in.arrived_s[number] = in.newest_s = now_s;
        in.came[number] = true;
    }
    return verdict;
}

can_verdict can_accept(uint32_t key, const uint8_t *data, size_t length, double now_s) {
    const can_verdict verdict = judged(key, data, length, now_s);
    in.counts.frames[verdict]++;
    return verdict;
}

const can_counts *can_count(void) {
    return &in.counts;
}

/* ---------------------------------------------------------------------------------------------------------- signals */

static uint64_t turned(uint64_t word) {
    word = (word & 0x00FF00FF00FF00FFu) << 8 | (word >> 8 & 0x00FF00FF00FF00FFu);
    word = (word & 0x0000FFFF0000FFFFu) << 16 | (word >> 16 & 0x0000FFFF0000FFFFu);
    return word << 32 | word >> 32;
}

static uint64_t mask_of(const can_format *format) {
    return UINT64_MAX >> (64 - format->length);
}

/* a signal's bits, its sign extended */
static uint64_t raw_of(const can_signal *signal) {
    const can_format *format = &can_formats[signal->format];
    const uint64_t mask = mask_of(format);
    uint64_t word;
    memcpy(&word, in.image[signal->row], sizeof word);
    if (format->big_endian) {
        word = turned(word);
    }
    word = word >> signal->shift & mask;
    return format->is_signed && word >> (format->length - 1) ? word | ~mask : word;
}

static double value_of(const can_format *format, uint64_t raw) {
    const double size = format->is_signed && raw >> 63 ? -(double)(~raw + 1) : (double)raw;
    return size * format->scale + format->offset;
}

static void put(const can_signal *signal, uint64_t raw) {
    const can_format *format = &can_formats[signal->format];
    uint64_t word;
    raw = (raw & mask_of(format)) << signal->shift;
    memcpy(&word, out.image[signal->row], sizeof word);
    word |= format->big_endian ? turned(raw) : raw;
    memcpy(out.image[signal->row], &word, sizeof word);
}

/* a value as bits, rounded to the nearest step (half to even) and held within what is sent */
static uint64_t coded(const can_format *format, double value) {
    uint64_t bits;
    if (value != value) {
        return format->absent;
    }
    double x = (value - format->offset) / format->scale;
    x = x < format->smallest ? format->smallest : x;
    x = x > format->largest ? format->largest : x;
    x += ROUNDS;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* ------------------------------------------------------------------------------------------------------ measurement */

uint32_t can_missing(void) {
    uint32_t missing = 0;
    for (uint32_t k = 0; k < RACKBMS_CAN_NEEDED; k++) {
        missing += !in.came[can_needed[k]];
    }
    return missing;
}

bool can_rack_fits(void) {
    for (uint32_t k = 0; k < RACKBMS_CAN_IDENTITY; k++) {
        if (raw_of(&can_identity[k].signal) != can_identity[k].raw) {
            return false;
        }
    }
    return true;
}

static void put_float(uint8_t *to, float value) {
    memcpy(to, &value, sizeof value);
}

static void put_field(const can_channel *channel, uint8_t *record, uint32_t k, double value, bool none, uint8_t quality) {
    const uint32_t nan_bits = NAN_BITS;
    if (channel->kind == CAN_F4) {
        uint8_t *to = record + channel->at + k * sizeof(float);
        if (none) {
            memcpy(to, &nan_bits, sizeof nan_bits);
        } else {
            put_float(to, (float)value);
        }
    } else if (channel->is_array) {
        value = value < 0.0 ? 0.0 : value > 255.0 ? 255.0 : value;
        record[channel->at + k] = none ? 0 : (uint8_t)value;
    } else {
        const bool unsafe = quality && channel->zero_unless_good;
        record[channel->at] = none || unsafe ? 0 : (uint8_t)(int64_t)value;
    }
}

/* fills place `k` of a channel; returns its quality */
static uint8_t fill(const can_channel *channel, uint8_t *record, uint32_t k) {
    const can_signal *signal = &channel->signals[k], *guard = channel->guards ? &channel->guards[k] : signal;
    const can_format *format = &can_formats[signal->format];
    const uint64_t raw = raw_of(signal);
    const bool never = !in.came[signal->row] || !in.came[guard->row];
    const bool invalid = !never && channel->guards && raw_of(guard) != channel->good;
    const bool gone = invalid && raw == format->absent;
    uint8_t quality = late[signal->row] || late[guard->row] ? RACKBMS_QUALITY_STALE : 0;
    if (gone) {
        quality |= RACKBMS_QUALITY_MISSING;
    } else if (invalid) {
        quality |= RACKBMS_QUALITY_DEVICE_INVALID;
    }
    if (never) {
        quality = RACKBMS_QUALITY_MISSING;
    }
    const double value = value_of(format, raw) * channel->factor + channel->offset;
    put_field(channel, record, k, value, gone || never, quality);
    if (channel->age_at != CAN_NOWHERE) {
        put_float(record + channel->age_at + k * sizeof(float), age_s[signal->row]);
    }
    if (channel->quality_is_array) {
        record[channel->quality_at + k] = quality;
    }
    return quality;
}

/* time and number of the sample, which go on where something new has come */
static void number(rackbms_measurement_head *head) {
    const uint64_t values = (uint64_t)1 << RACKBMS_CAN_SAMPLE_BITS;
    uint64_t step = 1;
    if (in.seen == in.counts.frames[CAN_ACCEPTED]) {
        return;
    }
    in.seen = in.counts.frames[CAN_ACCEPTED];
    if (in.newest_s > head->time_s) {
        head->time_s = in.newest_s;
    }
    if (RACKBMS_CAN_SAMPLE_BITS) {
        const uint64_t told = raw_of(&can_sample);
        step = in.sampled ? (told - in.sample) & (values - 1) : 1;
        in.sample = told;
        in.sampled = true;
    }
    head->sequence += step < values / 2 || !RACKBMS_CAN_SAMPLE_BITS ? (uint32_t)step : 1;
}

void can_measure(uint8_t *measurement, double now_s) {
    for (uint32_t row = 0; row < RACKBMS_CAN_IN_ROWS; row++) {
        const double passed_s = now_s - in.arrived_s[row];
        age_s[row] = in.came[row] ? (float)passed_s : __builtin_inff();
        late[row] = in.came[row] && passed_s > can_in_rows[row].limit_s;
    }
    for (uint32_t c = 0; c < RACKBMS_CAN_IN_CHANNELS; c++) {
        const can_channel *channel = &can_in_channels[c];
        uint8_t quality = 0;
        for (uint32_t k = 0; k < channel->count; k++) {
            quality |= fill(channel, measurement, k);
        }
        if (channel->quality_at != CAN_NOWHERE && !channel->quality_is_array) {
            measurement[channel->quality_at] = quality;
        }
    }
    number((rackbms_measurement_head *)(void *)measurement);
}

/* ---------------------------------------------------------------------------------------------------------- command */

static bool is_limit(float value) {
    return value >= 0.0f && value < __builtin_inff();
}

/* no rack could follow it */
static bool impossible(const uint8_t *command) {
    const rackbms_command_head *head = (const rackbms_command_head *)(const void *)command;
    const uint8_t *balance = command + rackbms_command_balance_at(RACKBMS_CONFIG_CELLS, RACKBMS_CONFIG_SENSORS);
    const uint8_t *shuttle = command + rackbms_command_shuttle_at(RACKBMS_CONFIG_CELLS, RACKBMS_CONFIG_SENSORS);
    const uint8_t contactors =
        RACKBMS_CONTACTOR_MAIN_POSITIVE | RACKBMS_CONTACTOR_MAIN_NEGATIVE | RACKBMS_CONTACTOR_PRECHARGE;
    for (uint32_t k = 0; k < RACKBMS_CONFIG_CELLS; k++) {
        if (balance[k] > 1 || (shuttle[k] && !RACKBMS_CAN_HAS_SHUTTLE)) {
            return true;
        }
    }
    return (head->contactors & ~contactors) || !is_limit(head->limit_discharge_a) || !is_limit(head->limit_charge_a) ||
           !is_limit(head->limit_discharge_w) || !is_limit(head->limit_charge_w) ||
           !(head->cooling_degc >= RACKBMS_CAN_COLDEST_DEGC && head->cooling_degc <= RACKBMS_CAN_HOTTEST_DEGC);
}

/* the number in place `k` of a field */
static double number_in(const can_channel *channel, const uint8_t *record, uint32_t k) {
    const uint8_t *from = record + channel->at;
    float real;
    uint32_t word;
    uint16_t half;
    switch (channel->kind) {
    case CAN_F4:
        memcpy(&real, from + k * sizeof real, sizeof real);
        return (double)real;
    case CAN_U2:
        memcpy(&half, from + k * sizeof half, sizeof half);
        return half;
    case CAN_U4:
        memcpy(&word, from + k * sizeof word, sizeof word);
        return channel->wrap ? (double)(word % channel->wrap) : word;
    case CAN_I4:
        memcpy(&word, from + k * sizeof word, sizeof word);
        return (double)(int32_t)word;
    default:
        return from[k];
    }
}

static void seal(uint32_t number) {
    const can_row *row = &can_out_rows[number];
    uint8_t *data = out.image[number];
    if (!row->is_protected) {
        return;
    }
    out.counter[number] = (uint8_t)((out.counter[number] + 1u) % row->counter_values);
    data[row->counter_at] |= (uint8_t)(out.counter[number] << row->counter_shift); /* it was 0 */
    if (row->crc_at != CAN_NO_CRC) {
        data[row->crc_at] = crc_of(row, data);
    }
}

bool can_command(const uint8_t *command) {
    if (impossible(command)) {
        return false;
    }
    memset(out.image, 0, sizeof out.image);
    for (uint32_t c = 0; c < RACKBMS_CAN_OUT_CHANNELS; c++) {
        const can_channel *channel = &can_out_channels[c];
        for (uint32_t k = 0; k < channel->count; k++) {
            const can_format *format = &can_formats[channel->signals[k].format];
            const double value = (number_in(channel, command, k) - channel->offset) / channel->factor;
            if (value < format->low || value > format->high) {
                return false;
            }
            put(&channel->signals[k], coded(format, value));
        }
    }
    for (uint32_t k = 0; k < RACKBMS_CAN_OUT_ROWS; k++) {
        seal(k);
    }
    return true;
}

const uint8_t *can_frame(uint32_t row) {
    return out.image[row];
}
