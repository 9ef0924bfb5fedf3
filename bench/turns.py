"""Systems that take turns, each in a process of its own: other work meets all of them alike."""
import subprocess
import sys
import time
from typing import Callable, Dict, List, Sequence


def take_turns(module: str, sides: Sequence[str], arguments: Sequence[str], rounds: int
               ) -> Dict[str, List[float]]:
    """{side: its seconds in every round}. A side is `python -m MODULE --side SIDE ARGUMENTS`.

    It calls `serve`.
    """
    processes = {side: subprocess.Popen(
        [sys.executable, '-m', module, '--side', side] + list(arguments),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True) for side in sides}
    spent: Dict[str, List[float]] = {side: [] for side in sides}
    for i in range(rounds + 1):
        for side, process in processes.items():
            assert process.stdin and process.stdout
            print('go', file=process.stdin, flush=True)
            seconds = float(process.stdout.readline())
            if i:           # the first round is for what is done once
                spent[side].append(seconds)
    for process in processes.values():
        process.communicate()       # closes what it reads, which ends it
    return spent


def serve(run: Callable[[], object]) -> None:
    """Runs whenever a line comes in, and prints the seconds that it took."""
    for _ in sys.stdin:
        started = time.time()
        run()
        print(time.time() - started, flush=True)
