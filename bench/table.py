"""What the benches share: a table with JSON beside it, the machine they ran on, peak memory."""
import contextlib
import json
import os
import platform
import resource
import subprocess
from typing import Any, Dict, Iterable, List, Optional, Sequence

import files


def write_table(columns: Sequence[str], rows: Iterable[Dict[str, Any]], path: str) -> None:
    """Prints each row {column: value} as soon as it is measured, then writes all to `path`."""
    print('  '.join(columns))
    measured = []
    for row in rows:
        measured.append(row)
        print('  '.join(format_value(row[name]).rjust(len(name)) for name in columns), flush=True)
    write_json(measured, path)


def write_json(rows: List[Dict[str, Any]], path: str) -> None:
    """Writes {"machine": describe_machine(), "rows": rows}."""
    with files.atomic_open(path) as f:
        json.dump({'machine': describe_machine(), 'rows': rows}, f, indent=1)


def describe_machine() -> Dict[str, Any]:
    """What figures depend on: processor, cores of this process, TensorFlow and git commit."""
    import tensorflow.compat.v1 as tf  # here: its memory would count as that of child processes
    return {'processor': processor_name(), 'cores': len(available_cores()),
            'tensorflow': tf.__version__, 'commit': commit()}


def processor_name() -> str:
    """The processor's model name, or what else the system tells."""
    with contextlib.suppress(OSError), open('/proc/cpuinfo') as f:
        for line in f:
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def available_cores() -> List[int]:
    """The cores that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def commit() -> Optional[str]:
    """The git commit, with '-dirty' if tracked files differ from it; None outside of a clone."""
    try:
        return subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*'],
            cwd=files.ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            universal_newlines=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def format_value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value == int(value) or value > 1e3:
        return '%d' % value
    return '%.3f' % value if abs(value) >= 0.01 else '%.1e' % value


def peak_mb() -> float:
    """The most memory that this process has held, or since `reset_peak`, in MB."""
    with contextlib.suppress(OSError), open('/proc/self/status') as f:
        return int(next(line for line in f if line.startswith('VmHWM:')).split()[1]) * 1.024e-3
    # elsewhere what its parent held when it was started counts too
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3


def reset_peak() -> None:
    """Lets `peak_mb` begin anew, where the system can (Linux)."""
    with contextlib.suppress(OSError), open('/proc/self/clear_refs', 'w') as f:
        f.write('5')
