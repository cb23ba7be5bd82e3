/* The tables that `bms build` makes of a CAN profile (rackbms_can.c): what lies where in which frame. */
#ifndef CAN_TABLES_H
#define CAN_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "rackbms_can.h"

#define CAN_NOWHERE 0xFFFFFFFFu /* of a place in a record: there is none */

/* how a signal's bits become a number, and back */
typedef struct {
    double scale, offset;     /* value = raw * scale + offset */
    double low, high;         /* values that its bits can carry: a command beyond is not sent */
    double smallest, largest; /* raw numbers that are sent */
    uint64_t absent;          /* raw: there is no value */
    uint8_t length;           /* bits */
    bool is_signed, big_endian;
} can_format;

/* a signal: its lowest bit is `shift` of the frame's 64 bits, which are read in the format's byte order */
typedef struct {
    uint16_t row;
    uint8_t shift, format;
} can_signal;

/* a frame */
typedef struct {
    double limit_s; /* older, and its values are stale */
    uint32_t key;   /* identifier, with SLCAN_EXTENDED where it has 29 bits */
    uint8_t length;
    bool is_protected;
    uint8_t crc_at; /* byte, or CAN_NO_CRC */
    uint8_t counter_at, counter_shift, counter_values;
} can_row;

enum { CAN_NO_CRC = 255 };

/* kinds of fields */
enum { CAN_F4, CAN_U1, CAN_U2, CAN_U4, CAN_I4 };

/* a field of a record, and the signals that carry it: value of the field = signal * factor + offset */
typedef struct {
    const can_signal *signals; /* one for each place of the field */
    const can_signal *guards;  /* which say whether the value is good, or none */
    double factor, offset;
    uint64_t wrap; /* of a command: the value begins anew at this number, 0: never */
    uint32_t count;
    uint32_t at, age_at, quality_at; /* bytes from the start of the record */
    uint8_t kind;
    bool is_array;
    bool quality_is_array; /* else one quality for all of it */
    bool zero_unless_good; /* what is not known to be safe is not */
    uint8_t good;          /* what a guard says of a good value */
} can_channel;

/* what a signal must say, for the rack to be the one that this controller is for */
typedef struct {
    can_signal signal;
    uint64_t raw;
} can_expected;

extern const can_format can_formats[];
extern const can_row can_in_rows[], can_out_rows[];
extern const uint16_t can_needed[]; /* rows that must have come before anything is decided */
extern const can_channel can_in_channels[], can_out_channels[];
extern const can_signal can_sample; /* the number of the sample, where RACKBMS_CAN_SAMPLE_BITS says that there is one */
extern const can_expected can_identity[];
extern const uint8_t can_crc_table[];
extern const uint8_t can_blank[]; /* a measurement in which nothing has come, as runs of `control_measure` */
extern const uint32_t can_blank_size;

#endif
