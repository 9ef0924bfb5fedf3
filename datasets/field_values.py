"""Values of a dataclass's fields, from the command line's text and from JSON: of the fields' types.

Hyperparameters are such fields, those of mels (mel_definition.py) and all others (params.py).
"""
import dataclasses
from typing import Any, Dict

import errors
from errors import UserError

_KINDS = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a word',
          tuple: 'numbers from a file: give it as --mel_stats'}
_MOST = 1e15            # of a whole number that stands for another


def parse(cls: type, text: str) -> Dict[str, Any]:
    """{name: value} of the fields of `cls` that `text` ('lr=1e-4,batch_size=8') sets.

    Raises UserError, naming the nearest valid choice, for what is not of that form, an unknown
    name or a value of the wrong type.
    """
    values = {}
    for item in filter(None, (part.strip() for part in (text or '').split(','))):
        name, equals, value = (part.strip() for part in item.partition('='))
        if not equals:
            raise UserError('hyperparameters are name=value,name=value; %s has no "="'
                            % errors.shown(item))
        values[name] = _parsed(name, _type(cls, name), value)
    return values


def check(cls: type, values: Dict[str, Any]) -> Dict[str, Any]:
    """{name: value} read from JSON, as the types of the fields of `cls`; UserError if it is not."""
    return {name: _checked(name, _type(cls, name), value) for name, value in values.items()}


def _type(cls, name):
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    if name not in types:
        raise UserError('there is no hyperparameter %s; %s'
                        % (errors.shown(name), errors.nearest(name, types)))
    return types[name]


def _parsed(name, kind, text):
    try:
        if kind is bool:
            return {'true': True, '1': True, 'yes': True,
                    'false': False, '0': False, 'no': False}[text.lower()]
        if kind is int:
            value = float(text)
            if value != int(value):
                raise ValueError
            return int(text) if text.lstrip('+-').isdigit() else int(value)
        if kind is tuple:
            raise ValueError
        return kind(text)
    except (KeyError, ValueError, OverflowError) as error:
        raise UserError('hyperparameter %s takes %s, not %s'
                        % (name, _KINDS[kind], errors.shown(text))) from error


def _checked(name, kind, value):
    if kind is float and type(value) is int and abs(value) <= _MOST:
        value = float(value)
    if kind is tuple and type(value) is list and all(type(x) in (int, float) and abs(x) <= _MOST
                                                     for x in value):
        value = tuple(map(float, value))
    if type(value) is not kind:
        raise UserError('hyperparameter %s takes %s, not %s'
                        % (name, _KINDS[kind], errors.shown(value)))
    return value
