"""A trained model as a thing to call: mels in, audio out."""
import os

import numpy as np
import tensorflow.compat.v1 as tf

import glow
import params
import parallel
import utils
from params import UserError


def noise(frames, hp, sigma, seed):
    """z [frames * groups_per_frame, n_group] from N(0, sigma^2), float32.

    A function of its arguments, and of a longer z the beginning: group t of a seed is the same
    whatever the number of frames.
    """
    shape = [frames * hp.groups_per_frame, hp.n_group]
    return (sigma * np.random.RandomState(seed).standard_normal(shape)).astype(np.float32)


def build(hp):
    """Placeholders and result of inference: (z, mel, lengths, audio); see `glow.infer`."""
    z = tf.placeholder(tf.float32, [None, None, hp.n_group], 'z')
    mel = tf.placeholder(tf.float32, [None, None, hp.n_mels], 'mel')
    lengths = tf.placeholder(tf.int32, [None], 'lengths')
    return z, mel, lengths, glow.infer(z, mel, hp, lengths)


def pad(mels):
    """[batch, frames of the longest, n_mels] of mels [frames, n_mels] of several lengths."""
    frames = max(len(mel) for mel in mels)
    return np.stack([np.pad(mel, [[0, frames - len(mel)], [0, 0]], 'edge') for mel in mels])


def read(path):
    """(HParams, {variable: array}) of a run's newest checkpoint, or of the one at `path`.

    Raises UserError if there is none, it cannot be read, or is of another model than its
    params.json says.
    """
    checkpoint = utils.find_checkpoint(path)
    hp = params.load(os.path.dirname(checkpoint))
    with tf.Graph().as_default():
        build(hp)
        return hp, utils.read_weights(checkpoint)


class Vocoder:
    """Vocodes mels with a checkpoint of train.py.

        vocoder = Vocoder.load('logdir/waveglow')
        audio = vocoder.vocode(mel)

    A vocoder has a graph and a session of its own: any number live in one process.
    """

    def __init__(self, hp, checkpoint):
        self.hp = hp
        with tf.Graph().as_default() as graph:
            self._z, self._mel, self._lengths, self._audio = build(hp)
            self._session = tf.Session(graph=graph, config=parallel.session_config())
            utils.load_weights(self._session, checkpoint)

    @classmethod
    def load(cls, path, preset=None, hparams=''):
        """From a run's directory (its newest checkpoint) or a checkpoint's path.

        `preset` and `hparams`, as on the command line, change what is not of the model itself.
        Raises UserError if there is no checkpoint, it cannot be read, or is of another model.
        """
        checkpoint = utils.find_checkpoint(path)
        directory = os.path.dirname(checkpoint)
        stored = params.load(directory)
        hp = params.override(params.preset(preset) if preset else stored, hparams)
        params.require_same(hp, stored, params.MODEL_FIELDS, 'the model in ' + directory,
                            'leave --preset away, and the model out of --hparams')
        return cls(hp, checkpoint)

    def close(self):
        """Frees the session."""
        self._session.close()

    def vocode(self, mel, sigma=None, seed=0):
        """Audio [frames * hop_length] of mel [frames, n_mels]; the same for the same seed."""
        return self.vocode_batch([mel], sigma, seed)[0]

    def vocode_batch(self, mels, sigma=None, seed=0):
        """[audio] of [mel], in one batch; each sounds as it would alone, to float rounding.

        Args:
          mels: arrays [frames, n_mels], of several lengths.
          sigma: standard deviation of the noise; hp.gen_sigma by default.

        Raises UserError for an array of another shape.
        """
        for mel in mels:
            if np.ndim(mel) != 2 or np.shape(mel)[1] != self.hp.n_mels or not len(mel):
                raise UserError('a mel is an array of frames x %d, not of %s; turn or compute it '
                                'anew' % (self.hp.n_mels, ' x '.join(map(str, np.shape(mel)))))
        if not mels:
            return []
        lengths = [len(mel) for mel in mels]
        z = noise(max(lengths), self.hp, self.hp.gen_sigma if sigma is None else sigma, seed)
        audio = self._session.run(self._audio, {
            self._z: np.stack([z] * len(mels)), self._mel: pad(mels), self._lengths: lengths})
        return [row[:n * self.hp.hop_length] for row, n in zip(audio, lengths)]
