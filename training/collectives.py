"""What hosts do together in the graph: means of gradients, the chief's weights, a common word.

Built on TensorFlow's collective operations, which run a ring over gRPC, or NCCL between GPUs. Each
operation has a key of its own in the graph, the same on all hosts.
"""
import tensorflow.compat.v1 as tf

from training import packing

WEIGHTS, WORDS = 1, 2       # groups: the hosts' first towers, and their CPUs


def reduce(tensor, hosts, key, final_op, group):
    """The sum (final_op 'Id') or mean ('Div') of `tensor` over all hosts: its shape, the same bits on each.

    In two rings side by side: one adds while the other sends. `key` is this operation's own in
    `group`, the same on all hosts.
    """
    return tf.raw_ops.CollectiveReduce(
        input=tensor, group_size=hosts.num_hosts, group_key=group, instance_key=key, merge_op='Add',
        final_op=final_op, subdiv_offsets=[0, 0])


def rows(row, hosts, key):
    """`row` (int64 [n]) of every host: [hosts, n]."""
    if hosts.num_hosts == 1:
        return row[None]
    with tf.device('/cpu:0'):
        mine = tf.one_hot(hosts.task_index, hosts.num_hosts, dtype=tf.int64)
        return reduce(mine[:, None] * row[None, :], hosts, key, 'Id', WORDS)


def mean(tensors, hosts, key):
    """The means over all hosts of float32 tensors, in packs, as `parallel.packed` makes them.

    The packs go one after the other, the last first: gradients of the last flow are ready first.
    A ring sends 2 (hosts - 1) / hosts times their bytes from each host.
    """
    if hosts.num_hosts == 1:
        return list(tensors)
    packs, means = packing.packs(tensors), [None] * len(tensors)
    before = []
    for n, pack in reversed(list(enumerate(packs))):
        packed = packing.join([tensors[i] for i in pack])
        with tf.control_dependencies(before):   # one order on all hosts
            reduced = reduce(packed, hosts, key + n, 'Div', WEIGHTS)
        before = [reduced]
        for i, part in zip(pack, packing.cut(reduced, [tensors[i].shape for i in pack])):
            means[i] = part
    return means


def broadcast(variables, hosts, key):
    """The operation that gives `variables` the values they have on the chief, on all hosts."""
    if hosts.num_hosts == 1:
        return tf.no_op()
    before = []
    for dtype in (tf.float32, tf.int64):
        alike = [v for v in variables if v.dtype.base_dtype == dtype]
        for pack in packing.packs(alike):
            chosen, key = [alike[i] for i in pack], key + 1
            size = sum(v.shape.num_elements() for v in chosen)
            group = dict(group_size=hosts.num_hosts, group_key=WEIGHTS, instance_key=key, shape=[size])
            with tf.control_dependencies(before):
                if hosts.is_chief:
                    values = packing.join([v.read_value() for v in chosen])
                    sent = tf.raw_ops.CollectiveBcastSend(input=values, **group)
                    before = [sent.op]
                else:
                    received = tf.raw_ops.CollectiveBcastRecv(T=dtype, **group)
                    parts = packing.cut(received, [v.shape for v in chosen])
                    before = [v.assign(part).op for v, part in zip(chosen, parts)]
    return tf.group(before)
