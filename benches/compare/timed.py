"""Runs one program and writes what it cost: a process of its own, because a child's peak memory is at least what the
process that forked it had. This one has about 8 MB; nothing below that can be told.

    python3 -I -S timed.py RESULT STDOUT STDERR DIRECTORY SYNC PROGRAM [ARGUMENT…]

RESULT gets a line: exit code, seconds, user seconds, system seconds, peak resident bytes. With SYNC `1` what was written
is flushed to the disk within the measured seconds.
"""

import os
import sys
import time


def main():
    result, stdout, stderr, directory, sync = sys.argv[1:6]
    program = sys.argv[6:]
    opened = [os.open(os.devnull, os.O_RDONLY)]
    opened += [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for path in (stdout, stderr)]
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            for number, descriptor in enumerate(opened):
                os.dup2(descriptor, number)
            os.chdir(directory)
            os.execvp(program[0], program)
        except OSError as error:
            os.write(2, f"{program[0]}: {error}\n".encode())
        os._exit(127)
    _, status, usage = os.wait4(child, 0)
    if sync == "1":
        os.sync()
    seconds = time.monotonic() - begun
    code = os.waitstatus_to_exitcode(status)
    with open(result, "w") as out:
        print(code, seconds, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024, file=out)


main()
