"""The firmware's mail.c on this computer: what has no room waits, and the bell is rung once."""

from __future__ import annotations

import subprocess
from pathlib import Path

HARNESS = """
#include <stdio.h>
#include "mail.h"
enum { MAIL = 262144 };
volatile struct mail { uint32_t used, left, taken, sent, fetched, reserved[11]; uint8_t in[MAIL], out[MAIL]; } link_mail;
static uint8_t data[2 * MAIL];
static void told(const char *what, size_t value) { printf("%s %zu, to tell %d\\n", what, value, mail_to_tell()); }
int main(void) {
    uint8_t byte = 0;
    for (size_t k = 0; k < sizeof data; k++) data[k] = (uint8_t)(k * 7);
    printf("used %d\\n", mail_used());
    link_mail.used = 1; /* what a memory may hold that nobody has written */
    printf("used %d\\n", mail_used());
    link_mail.used = 0x4C49414D;
    link_mail.left = link_mail.taken = link_mail.sent = link_mail.fetched = 0xFFFFFFFEu; /* numbers wrap soon */
    told("nothing", mail_receive(&byte));
    told("sent", mail_send(data, 5));
    told("again", 0);
    told("sent", mail_send(data + 5, sizeof data));
    told("sent", mail_send(data, 1));
    link_mail.fetched += 3;
    told("sent", mail_send(data + MAIL, 9));
    size_t wrong = 0;
    for (uint32_t k = 3; k < MAIL + 3u; k++) wrong += link_mail.out[(0xFFFFFFFEu + k) % MAIL] != data[k];
    told("wrong", wrong);
    for (uint32_t k = 0; k < 4; k++) link_mail.in[(link_mail.left + k) % MAIL] = (uint8_t)(10 + k);
    link_mail.left += 4;
    while (mail_receive(&byte)) printf("%d ", byte);
    printf("used %d\\n", mail_used());
    return 0;
}
"""

EXPECTED = """\
used 0
used 0
nothing 0, to tell 0
sent 5, to tell 1
again 0, to tell 0
sent 262139, to tell 1
sent 0, to tell 1
sent 3, to tell 1
wrong 0, to tell 0
10 11 12 13 used 1
"""


def test_mail_is_taken_in_order_and_what_has_no_room_waits(cc: str, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "harness.c").write_text(HARNESS)
    board = repository / "bms" / "firmware" / "board"
    words = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", f"-I{board}"]
    subprocess.run([cc, *words, board / "mail.c", tmp_path / "harness.c", "-o", tmp_path / "harness"], check=True)
    done = subprocess.run([tmp_path / "harness"], capture_output=True, text=True, check=True)
    assert done.stdout == EXPECTED
