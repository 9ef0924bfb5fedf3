"""dataset.py: which clips come, and that wav and mel belong together."""
import os
import wave

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import params
from datasets import clip_files, mel_files
from datasets.clips import Clips
from errors import UserError

HP = params.preset('small').replace(clip_samples=512, batch_size=3)  # clips of 2 frames


def write(directory, name, samples, mel_frames=None, rate=16000, width=2, channels=1):
    """A wav that counts its samples and a mel whose every value is its frame's number."""
    path = os.path.join(directory, name + '.wav')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with wave.open(path, 'wb') as f:
        f.setnchannels(channels)
        f.setsampwidth(width)
        f.setframerate(rate)
        f.writeframes(np.arange(samples * channels).astype('<i%d' % width).tobytes())
    frames = 1 + samples // 256 if mel_frames is None else mel_frames
    mel_files.save_mel(os.path.join(directory, name + '.mel'),
                   np.repeat(np.arange(frames, dtype=np.float32)[:, None], 80, axis=1))


@pytest.fixture
def corpus(tmp_path):
    directory = str(tmp_path)
    for name, frames in (('short', 4), ('nested/long', 12), ('mid', 8)):
        write(directory, name, 256 * frames + 17)
    names = ['short', 'nested/long', 'mid']
    return directory, clip_files.index(names, directory, directory, HP)


def take(steps, directory, utterances, seed=0, first_step=0, hp=HP):
    """The first `steps` elements of the training pipeline, as lists of numpy Clips."""
    with tf.Graph().as_default(), tf.Session() as session:
        clips = clip_files.training_clips(utterances, directory, directory, hp, seed, first_step)
        iterator = tf.data.make_initializable_iterator(clips)
        element = iterator.get_next()
        session.run(iterator.initializer)
        return [Clips(*session.run(element)) for _ in range(steps)]


@pytest.mark.slow
def test_noise_belongs_to_the_clip(corpus):
    """Of every clip of a seed its own, whatever step and part of a batch it comes in."""
    hp = HP.replace(stft_weight=1.0, clip_samples=2048, batch_size=2)
    directory, utterances = corpus
    utterances = clip_files.long_enough(utterances, hp)
    run = take(4, directory, utterances, hp=hp)
    noise = np.concatenate([clips.noise for clips in run])
    assert noise.shape == (8, 2048 // hp.n_group, hp.n_group)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert np.abs(np.corrcoef(noise.reshape([8, -1])) - np.eye(8)).max() < 0.1
    later = take(2, directory, utterances, first_step=2, hp=hp)
    whole = take(2, directory, utterances, hp=hp.replace(batch_size=4))
    np.testing.assert_array_equal(np.concatenate([clips.noise for clips in later]), noise[4:])
    np.testing.assert_array_equal(np.concatenate([clips.noise for clips in whole]), noise)
    assert take(1, directory, utterances)[0].noise == ()
    other, = take(1, directory, utterances, seed=1, hp=hp)
    assert not np.array_equal(other.noise, run[0].noise)


def test_index_counts_whole_frames_of_both(tmp_path):
    directory = str(tmp_path)
    write(directory, 'a', 2560)                    # 10 frames, 11 in the mel
    write(directory, 'b', 2559)                    # 9
    write(directory, 'c', 2560, mel_frames=7)      # the mel is shorter
    found = clip_files.index(['c', 'a', 'b'], directory, directory, HP)
    assert [(u.name, u.frames) for u in found] == [('c', 7), ('a', 10), ('b', 9)]
    assert [u.wav_offset for u in found] == [44] * 3


@pytest.mark.parametrize('change,words', [
    (dict(rate=22050), ['22050 Hz', 'one of 16 bits at 16000 Hz']),
    (dict(width=4), ['32 bits']),
    (dict(channels=2), ['2 channels']),
])
def test_index_names_a_wav_of_another_kind(tmp_path, change, words):
    write(str(tmp_path), 'good', 2560)
    write(str(tmp_path), 'bad', 2560, **change)
    with pytest.raises(UserError) as error:
        clip_files.index(['good', 'bad'], str(tmp_path), str(tmp_path), HP)
    assert all(word in str(error.value) for word in words + ['bad.wav', 'preprocess'])


def test_index_names_missing_and_cut_files(tmp_path):
    directory = str(tmp_path)
    for name in ('no_mel', 'no_wav', 'cut_wav', 'cut_mel', 'text'):
        write(directory, name, 2560)
    os.unlink(os.path.join(directory, 'no_mel.mel'))
    os.unlink(os.path.join(directory, 'no_wav.wav'))
    os.truncate(os.path.join(directory, 'cut_wav.wav'), 4000)
    os.truncate(os.path.join(directory, 'cut_mel.mel'), 1001)
    with open(os.path.join(directory, 'text.wav'), 'w') as f:
        f.write('no sound')
    for name, words in (('no_mel', 'no_mel.mel'), ('no_wav', 'no_wav.wav'),
                        ('cut_wav', 'cut_wav.wav is cut short'), ('cut_mel', 'whole frames'),
                        ('text', 'text.wav')):
        with pytest.raises(UserError, match=words):
            clip_files.index([name], directory, directory, HP)
    with pytest.raises(UserError, match='and 4 more files'):
        clip_files.index(['no_mel', 'no_wav', 'cut_wav', 'cut_mel', 'text'], directory, directory,
                         HP)


def test_long_enough(corpus):
    _, utterances = corpus
    kept = clip_files.long_enough(utterances, HP.replace(clip_samples=256 * 8))
    assert [u.name for u in kept] == ['nested/long', 'mid']
    with pytest.raises(UserError, match='clip_samples=3072'):  # 12 frames, the longest
        clip_files.long_enough(utterances, HP.replace(clip_samples=256 * 13))


def test_wav_and_mel_of_a_clip_belong_together(corpus):
    directory, utterances = corpus
    frames = {u.name: u.frames for u in utterances}
    seen = set()
    for clips in take(80, directory, utterances):
        assert clips.audio.shape == (3, 512) and clips.mel.shape == (3, 2, 80)
        for audio, mel, name, start in zip(*clips[:4]):
            name = name.decode()
            assert 0 <= start <= frames[name] - 2
            seen.add((name, start))
            np.testing.assert_array_equal(mel, np.repeat([[start], [start + 1]], 80, axis=1))
            np.testing.assert_array_equal(audio * 32768, np.arange(512) + 256 * start)
    # every frame that a clip can start at, the last one included
    assert seen == {(name, start) for name, n in frames.items() for start in range(n - 1)}


def test_clips_are_a_function_of_seed_and_step(corpus):
    directory, utterances = corpus
    whole = take(9, directory, utterances, seed=5)
    for a, b in zip(whole[4:], take(5, directory, utterances, seed=5, first_step=4)):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)
    other = take(9, directory, utterances, seed=6)
    assert any((a.start_frame != b.start_frame).any() for a, b in zip(whole, other))


def test_clips_do_not_depend_on_how_they_are_batched(corpus):
    directory, utterances = corpus
    singles = take(12, directory, utterances, hp=HP.replace(batch_size=1))
    batches = take(3, directory, utterances, hp=HP.replace(batch_size=4))
    assert [n for c in singles for n in c.name] == [n for c in batches for n in c.name]


def test_utterances_are_drawn_in_proportion_to_their_length(corpus):
    """4 : 12 : 8 frames, within four standard deviations of 1,500 draws."""
    directory, utterances = corpus
    names = [name.decode() for clips in take(500, directory, utterances) for name in clips.name]
    for u in utterances:
        p = u.frames / 24
        assert abs(names.count(u.name) - 1500 * p) < 4 * np.sqrt(1500 * p * (1 - p)), u


def test_whole_utterances_in_order_once_and_cut(corpus):
    directory, utterances = corpus
    hp = HP.replace(eval_seconds=256 * 10 / 16000)
    with tf.Graph().as_default(), tf.Session() as session:
        element = tf.data.make_one_shot_iterator(clip_files.whole_utterances(
            utterances, directory, directory, hp)).get_next()
        found = [Clips(*session.run(element)) for _ in range(3)]
        with pytest.raises(tf.errors.OutOfRangeError):
            session.run(element)
    assert [c.name[0].decode() for c in found] == ['short', 'nested/long', 'mid']
    assert [c.mel.shape[1] for c in found] == [4, 10, 8]
    assert [c.audio.shape for c in found] == [(1, 1024), (1, 2560), (1, 2048)]


def test_no_more_is_read_than_a_clip_takes(tmp_path, monkeypatch):
    """Of a file of any length; and one that changed is told by name."""
    directory = str(tmp_path)
    write(directory, 'long', 2560 * 100)
    utterances = clip_files.index(['long'], directory, directory, HP)
    read, whole = [], clip_files._read_part

    def counted(path, size, offset, count):
        read.append(count)
        return whole(path, size, offset, count)
    monkeypatch.setattr(clip_files, '_read_part', counted)
    with tf.Graph().as_default(), tf.Session() as session:
        element = tf.data.make_one_shot_iterator(clip_files.training_clips(
            utterances, directory, directory, HP, 0)).get_next()
        session.run(element)
        assert set(read) == {2 * HP.clip_frames * HP.hop_length, 4 * HP.clip_frames * HP.n_mels}
        with open(os.path.join(directory, 'long.wav'), 'ab') as f:
            f.write(b'xx')
        with pytest.raises(tf.errors.OpError, match='long.wav has changed'):
            for _ in range(20):
                session.run(element)
