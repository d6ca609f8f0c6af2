"""The command `grouper`, and what a terminal shows of the work inside a program.

`main` and what it imports are light: a short verb takes little more than the interpreter's own start. What is heavy is imported by
those verbs that need it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what a command line says, `sys.argv` by default, and return the exit status. An error is told in one line.

    Without `argv` the process is this function's: if Ctrl-C ended the verb, or the command of `run`, the process dies of SIGINT,
    which is status 130 in a shell. So a script that calls it ends with it, and does not go on with its next line.
    """
    from .exit_status import INTERRUPT, Signalled

    try:
        return _outcome(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        number = INTERRUPT
    except Signalled as ended:
        number = ended.number
    if argv is None and number == INTERRUPT:
        _die_of_interrupt()
    return 128 + number


def _outcome(argv: Sequence[str]) -> int:
    from .arguments import parse
    from .exit_status import FAILED, Signalled
    from .output import flush, tell, write

    try:
        arguments = parse(argv)

        from .driving import drive
        from .waitgroup import VERBS

        answer = drive(VERBS[arguments.verb], arguments)
    except SystemExit as end:  # help, or the version
        flush()
        return int(end.code or 0)
    except Exception as error:
        return _failed(error, argv)
    try:
        write(answer, json=arguments.output == "json")
    except OSError as error:
        tell(f"it was done, but the result cannot be written ({error.strerror}): see where standard output goes")
        answer.status = answer.status or FAILED
    if answer.trouble is not None:
        tell(str(answer.trouble))
    if answer.signal is not None:
        raise Signalled(answer.signal)
    return answer.status


def _failed(error: Exception, argv: Sequence[str]) -> int:
    from .exit_status import FAILED, status_of
    from .output import tell

    if "--debug" in argv:
        from traceback import print_exception

        print_exception(error)
    status = status_of(error)
    if status is None:
        tell(f"{type(error).__name__}: {error}: this is a fault of the command itself: with --debug it tells where")
        return FAILED
    token = getattr(error, "token", None)
    if token is not None:
        tell(f"{error}: whether the change was made is not known: the same command with --token {token} makes it once")
    else:
        tell(str(error))
    return status


def _die_of_interrupt() -> None:
    import os
    import signal

    if sys.platform != "win32":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)
