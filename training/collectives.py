"""What hosts do together in the graph: they average gradients, share weights, compare settings.

Built on TensorFlow's collective operations, which run a ring over gRPC, or NCCL between GPUs. Each
operation has a key of its own in the graph, the same on all hosts.
"""
from typing import List, Sequence

import tensorflow.compat.v1 as tf

from training.hosts import Hosts

# Keys of groups of devices: the hosts' first towers, and their CPUs.
TOWERS, CPUS = 1, 2


def all_reduce(tensor: tf.Tensor, hosts: Hosts, key: int, final_op: str, group: int) -> tf.Tensor:
    """The sum (final_op 'Id') or mean ('Div') of `tensor` over all hosts: the same bits on each.

    In two rings side by side: one adds while the other sends. `key` is this operation's own in
    `group`, the same on all hosts.
    """
    return tf.raw_ops.CollectiveReduce(
        input=tensor, group_size=hosts.num_hosts, group_key=group, instance_key=key,
        merge_op='Add', final_op=final_op, subdiv_offsets=[0, 0])


def all_gather(row: tf.Tensor, hosts: Hosts, key: int) -> tf.Tensor:
    """`row` (int64 [n]) of every host: [num_hosts, n]."""
    if hosts.num_hosts == 1:
        return row[None]
    with tf.device('/cpu:0'):
        mine = tf.one_hot(hosts.task_index, hosts.num_hosts, dtype=tf.int64)
        return all_reduce(mine[:, None] * row[None, :], hosts, key, 'Id', CPUS)


def all_reduce_mean(tensors: Sequence[tf.Tensor], hosts: Hosts, key: int) -> List[tf.Tensor]:
    """The means over all hosts of float32 tensors.

    They go one after the other, the last first: gradients of the last flows are ready first. A ring
    sends 2 (num_hosts - 1) / num_hosts times their bytes from each host. Takes as many keys as
    there are tensors, from `key` on.
    """
    if hosts.num_hosts == 1:
        return list(tensors)
    means: List[tf.Tensor] = []
    for n, tensor in reversed(list(enumerate(tensors))):
        with tf.control_dependencies(means[:1]):   # one order on all hosts
            means.insert(0, all_reduce(tensor, hosts, key + n, 'Div', TOWERS))
    return means


def broadcast(variables: Sequence[tf.Variable], hosts: Hosts, key: int) -> tf.Operation:
    """The operation that gives `variables`, on all hosts, the values they have on the chief.

    Takes as many keys as there are variables, from `key` on.
    """
    if hosts.num_hosts == 1:
        return tf.no_op()
    before: List[tf.Operation] = []
    for n, variable in enumerate(variables):
        group = dict(group_size=hosts.num_hosts, group_key=TOWERS, instance_key=key + n,
                     shape=variable.shape)
        with tf.control_dependencies(before):
            if hosts.is_chief:
                sent = tf.raw_ops.CollectiveBcastSend(input=variable.read_value(), **group)
                before = [sent.op]
            else:
                received = tf.raw_ops.CollectiveBcastRecv(T=variable.dtype.base_dtype, **group)
                before = [variable.assign(received).op]
    return tf.group(before)
