"""The manifests of docs/scaling start the training that they say."""
import json
import os
import subprocess
import sys

import yaml
from conftest import ROOT

import train
from training import hosts

SCALING = os.path.join(ROOT, 'docs', 'scaling')


def parsed(monkeypatch, arguments):
    monkeypatch.setattr(sys, 'argv', ['train.py'] + arguments)
    return train.parse_arguments()


def test_tfjob(monkeypatch):
    with open(os.path.join(SCALING, 'tfjob.yaml')) as f:
        job = yaml.safe_load(f)
    assert (job['apiVersion'], job['kind']) == ('kubeflow.org/v1', 'TFJob')
    replicas = job['spec']['tfReplicaSpecs']
    # the operator's TF_CONFIG: a service for each pod, at the port of that name
    cluster = {}
    for kind, spec in replicas.items():
        container, = spec['template']['spec']['containers']
        assert container['name'] == 'tensorflow' and container['command'] == ['python', 'train.py']
        port, = [p['containerPort'] for p in container['ports'] if p['name'] == 'tfjob-port']
        cluster[kind.lower()] = ['waveglow-%s-%d.default.svc:%d' % (kind.lower(), i, port)
                                 for i in range(spec['replicas'])]
        args = parsed(monkeypatch, container['args'])
        assert args.ngpu == container['resources']['limits']['nvidia.com/gpu']
        mount, = container['volumeMounts']
        assert args.data.startswith(mount['mountPath']) and args.logdir_root.startswith(
            mount['mountPath'])
    for kind, index in (('chief', 0), ('worker', 1)):
        config = json.dumps({'cluster': cluster, 'task': {'type': kind, 'index': 0},
                             'environment': 'cloud'})
        found = hosts.from_arguments(None, None, config)
        assert (found.num_hosts, found.task_index) == (2, index)


def test_the_network_policy_lets_the_hosts_alone_reach_their_port():
    job, policy = {}, {}
    for manifest, name in ((job, 'tfjob.yaml'), (policy, 'network_policy.yaml')):
        with open(os.path.join(SCALING, name)) as f:
            manifest.update(yaml.safe_load(f))
    assert (policy['apiVersion'], policy['kind']) == ('networking.k8s.io/v1', 'NetworkPolicy')
    spec = policy['spec']
    hosts_alone = {'matchLabels': {'training.kubeflow.org/job-name': job['metadata']['name']}}
    assert spec['podSelector'] == hosts_alone and spec['policyTypes'] == ['Ingress']
    rule, = spec['ingress']
    assert rule['from'] == [{'podSelector': hosts_alone}]
    for replicas in job['spec']['tfReplicaSpecs'].values():
        container, = replicas['template']['spec']['containers']
        assert rule['ports'] == [{'protocol': 'TCP', 'port': port['containerPort']}
                                 for port in container['ports']]


def test_slurm(monkeypatch, tmp_path):
    """Run with stand-ins for Slurm's commands and for python: one command a node, each its own."""
    for name, text in (('scontrol', 'test "$3" = "node[3-4]" && printf "node3\\nnode4\\n"'),
                       ('srun', 'for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done'),
                       ('python', 'printf "%s\\n" "$@" END')):
        path = tmp_path / name
        path.write_text('#!/bin/sh\n%s\n' % text)
        path.chmod(0o755)
    out = subprocess.check_output(
        [os.path.join(SCALING, 'slurm.sh'), '--data=/c d/train-*', '--ngpu=8'],
        universal_newlines=True, env=dict(
            os.environ, PATH='%s:%s' % (tmp_path, os.environ['PATH']), SLURM_JOB_ID='1234567',
            SLURM_JOB_NODELIST='node[3-4]'))
    commands = [part.split('\n') for part in out.split('\nEND\n')[:-1]]
    assert len(commands) == 2
    for i, command in enumerate(commands):
        assert command[0] == 'train.py'
        args = parsed(monkeypatch, command[1:])
        assert (args.data, args.ngpu) == ('/c d/train-*', 8)
        assert hosts.from_arguments(args.worker_hosts, args.task_index, None) == hosts.Hosts(
            ('node3:34567', 'node4:34567'), i)
