/* Decisions: see boot.h. Whatever is decided is written down first, and done afterwards. */
#include "boot.h"

#include <string.h>

static uint32_t other(uint32_t slot) {
    return slot == 0 ? 1 : 0;
}

/* keeps what a crash has left; one that comes again and again in the same way is written once */
static bool note_crash(boot_record *record) {
    uint32_t words[PORT_CRASH];
    const size_t telling = (PORT_CRASH - 2) * sizeof *words; /* the last two count steps, and check */
    if (!port_crash(words) || memcmp(words, record->crash, telling) == 0) {
        return false;
    }
    memcpy(record->crash, words, sizeof words);
    return true;
}

static void end_trial(boot_record *record, boot_event event, image_verdict verdict) {
    record->failed = record->trial;
    record->trial = NO_SLOT;
    record->tries = 0;
    record->event = event;
    record->verdict = verdict;
}

/* whether the image on trial is to be started; `*changed` where the record is another now */
static bool begin_trial(boot_record *record, image_facts *facts, bool *changed) {
    if (record->trial == NO_SLOT) {
        return false;
    }
    const image_verdict verdict = image_check(record->trial, record->counter, facts);
    *changed = true;
    if (verdict != IMAGE_GOOD) {
        end_trial(record, EVENT_REFUSED, verdict);
        return false;
    }
    if (record->tries >= BOOT_TRIES) {
        end_trial(record, EVENT_REVERTED, IMAGE_GOOD);
        return false;
    }
    record->tries++;
    record->event = EVENT_TRIED;
    record->verdict = IMAGE_GOOD;
    return true;
}

static bool is_newer(const image_facts *one, const image_facts *than) {
    if (one->counter != than->counter) {
        return one->counter > than->counter;
    }
    for (int k = 0; k < 4; k++) {
        if (one->version[k] != than->version[k]) {
            return one->version[k] > than->version[k];
        }
    }
    return false;
}

/* without an image that has proved itself: the newest that is good and has not failed */
static bool adopt(boot_record *record, image_facts *facts) {
    uint32_t found = NO_SLOT;
    for (uint32_t slot = 0; slot < PORT_SLOTS; slot++) {
        image_facts own;
        if (slot != record->failed && image_check(slot, record->counter, &own) == IMAGE_GOOD &&
            (found == NO_SLOT || is_newer(&own, facts))) {
            found = slot;
            *facts = own;
        }
    }
    if (found == NO_SLOT) {
        return false;
    }
    record->active = found;
    record->counter = facts->counter;
    record->event = EVENT_ADOPTED;
    record->verdict = IMAGE_GOOD;
    return true;
}

boot_choice boot_choose(void) {
    boot_choice choice = {0};
    boot_record *record = &choice.record;
    bool changed = record_load(record) && !record_is_twice();
    changed |= note_crash(record);
    if (begin_trial(record, &choice.facts, &changed)) {
        if (record_store(record)) {
            choice.slot = record->trial;
            return choice;
        }
        record_load(record); /* without a record of its start, a trial would never end */
        changed = false;
    }
    choice.slot = NO_SLOT;
    if (record->active != NO_SLOT && image_check(record->active, record->counter, &choice.facts) == IMAGE_GOOD) {
        choice.slot = record->active;
    } else if (adopt(record, &choice.facts)) {
        choice.slot = record->active;
        changed = true;
    }
    if (changed) {
        record_store(record);
    }
    return choice;
}

bool boot_confirm(uint32_t slot, uint32_t evidence) {
    boot_record record;
    image_facts facts;
    if ((evidence & BOOT_SELF_TEST_PASSED) == 0 || (evidence & BOOT_RACK_HEALTHY) == 0) {
        return false;
    }
    if (!record_load(&record) || record.trial != slot) {
        return record.active == slot && slot != NO_SLOT;
    }
    if (image_check(slot, record.counter, &facts) != IMAGE_GOOD) {
        return false;
    }
    record.active = slot;
    record.trial = NO_SLOT;
    record.tries = 0;
    record.counter = facts.counter;
    record.event = EVENT_CONFIRMED;
    record.verdict = IMAGE_GOOD;
    return record_store(&record);
}

uint32_t boot_free_slot(uint32_t running) {
    boot_record record;
    record_load(&record);
    if (record.active == NO_SLOT) {
        return running == NO_SLOT ? 0 : other(running);
    }
    /* the image that has proved itself stays, also while another has its trial */
    return other(record.active) == running ? NO_SLOT : other(record.active);
}

bool boot_open(uint32_t slot) {
    boot_record record;
    record_load(&record);
    if (record.active == slot) {
        return false;
    }
    record.trial = NO_SLOT;
    record.tries = 0;
    record.failed = slot; /* until it is whole, it is nothing to fall back to */
    record.event = EVENT_OPENED;
    record.verdict = IMAGE_GOOD;
    return record_store(&record);
}

image_verdict boot_arm(uint32_t slot) {
    boot_record record;
    image_facts facts;
    record_load(&record);
    if (record.active == slot) {
        return IMAGE_OTHER_SLOT;
    }
    const image_verdict verdict = image_check(slot, record.counter, &facts);
    record.trial = verdict == IMAGE_GOOD ? slot : NO_SLOT;
    record.failed = verdict == IMAGE_GOOD ? NO_SLOT : slot;
    record.tries = 0;
    record.event = verdict == IMAGE_GOOD ? EVENT_ARMED : EVENT_REFUSED;
    record.verdict = verdict;
    if (!record_store(&record) && verdict == IMAGE_GOOD) {
        return IMAGE_UNREADABLE;
    }
    return verdict;
}
