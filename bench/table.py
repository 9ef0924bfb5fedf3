"""What the benches share: a table on the terminal with JSON beside it, and a process's memory."""
import contextlib
import json
import resource

import files


def write_table(columns, rows, path):
    """Prints rows {column: value} as they come, and writes them all to `path`."""
    print('  '.join(columns))
    done = []
    for row in rows:
        done.append(row)
        print('  '.join(shown(row[name]).rjust(len(name)) for name in columns), flush=True)
    with files.atomic_open(path) as f:
        json.dump(done, f, indent=1)


def shown(value):
    return value if isinstance(value, str) else '%d' % value if value == int(value) or value > 1e3 \
        else '%.3f' % value


def peak_mb():
    """The most memory that this process has held, or since `forget_peak`, in MB."""
    with contextlib.suppress(OSError), open('/proc/self/status') as f:
        return int(next(line for line in f if line.startswith('VmHWM:')).split()[1]) * 1.024e-3
    # elsewhere what its parent held when it was started counts too
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3


def forget_peak():
    """Lets `peak_mb` begin anew, where the system can (Linux)."""
    with contextlib.suppress(OSError), open('/proc/self/clear_refs', 'w') as f:
        f.write('5')
