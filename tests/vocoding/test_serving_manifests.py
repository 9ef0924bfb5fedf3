"""The files of docs/serving fit each other and the model that export.py writes."""
import os

import yaml
from conftest import ROOT

SERVING = os.path.join(ROOT, 'docs', 'serving')


def test_the_deployment():
    with open(os.path.join(SERVING, 'deployment.yaml')) as f:
        deployment, service = yaml.safe_load_all(f)
    assert (deployment['apiVersion'], deployment['kind']) == ('apps/v1', 'Deployment')
    assert (service['apiVersion'], service['kind']) == ('v1', 'Service')
    template = deployment['spec']['template']
    labels = template['metadata']['labels']
    assert deployment['spec']['selector'] == {'matchLabels': labels}
    assert service['spec']['selector'] == labels
    container, = template['spec']['containers']
    flags = dict(arg.lstrip('-').split('=') for arg in container['args'])
    ports = {port['name']: port['containerPort'] for port in container['ports']}
    assert ports == {'http': int(flags['rest_api_port']), 'grpc': 8500}
    for port in service['spec']['ports']:
        assert port['port'] == ports[port['targetPort']]
    mount, = container['volumeMounts']
    volume, = template['spec']['volumes']
    assert mount['mountPath'] == flags['model_base_path'] and mount['name'] == volume['name']
    for probe in ('startupProbe', 'readinessProbe'):
        asked = container[probe]['httpGet']
        assert asked['port'] in ports
        assert asked['path'] == '/v1/models/%s/metadata' % flags['model_name']
    assert container['livenessProbe']['tcpSocket']['port'] in ports


def test_the_page_has_the_flags_of_the_deployment():
    with open(os.path.join(ROOT, 'docs', 'serving.md')) as f:
        page = f.read()
    with open(os.path.join(SERVING, 'deployment.yaml')) as f:
        container, = next(yaml.safe_load_all(f))['spec']['template']['spec']['containers']
    assert container['image'] in page
    for flag in container['args']:
        if 'model' not in flag:
            assert flag.split('=')[0] in page, flag
