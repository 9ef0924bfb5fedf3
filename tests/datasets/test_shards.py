"""Shards: what is packed is what comes out, damage is named, and training goes on where it was."""
import collections
import os
import shutil
import struct
import sys

import google_crc32c
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from speech import MODEL, WAVS, script
from test_train import assert_same_bits, weights

import params
import train
from datasets import audio_files, clip_shards, file_lists, mel_files, shards
from errors import UserError

HP = params.preset('small').replace(clip_samples=2048)
FRAMES = 20, 9, 31, 8, 16, 7        # of the records of `content`; a clip has 8


def record(name='u', frames=20, hp=HP, rng=np.random.RandomState(0)):
    return shards.encode(name, rng.randint(-999, 999, frames * hp.hop_length),
                         rng.randn(frames, hp.n_mels), hp)


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    """(the bytes of a shard of six records, where each begins and the last ends)."""
    path = str(tmp_path_factory.mktemp('shard') / 'train-00000-of-00001.tfrecord')
    payloads = [record('u%d' % i, frames) for i, frames in enumerate(FRAMES)]
    shards.write(path, payloads)
    with open(path, 'rb') as f:
        return f.read(), np.cumsum([0] + [16 + len(payload) for payload in payloads]).tolist()


def framed(payload):
    """A record of a TFRecord file, by the format's definition."""
    def masked(data):
        crc = google_crc32c.value(data)
        return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xa282ead8) % 2 ** 32)
    length = struct.pack('<Q', len(payload))
    return length + masked(length) + payload + masked(payload)


def example(**features):
    """A record of an Example of these bytes, the rest as it should be; None leaves one out."""
    whole = tf.train.Example.FromString(record()).features.feature
    values = dict({name: whole[name].bytes_list.value[0] for name in whole}, **features)
    return framed(tf.train.Example(features=tf.train.Features(feature={
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in values.items() if value is not None})).SerializeToString())


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1:]


NAN = np.full([20, HP.n_mels], np.nan, '<f4').tobytes()
# what is done to the bytes c of six records beginning at o; what is said; the record that is named;
# how many of the six are left, others than which are whole
DAMAGES = {
    'a bit of the content': (lambda c, o: flipped(c, o[2] + 500), 'content does not match', 2, 5),
    'a bit of the last content': (lambda c, o: flipped(c, o[6] - 5), 'content does not', 5, 5),
    'the checksum of the content': (lambda c, o: flipped(c, o[2] - 1), 'content does not', 1, 5),
    'a bit of the length': (lambda c, o: flipped(c, o[3]), 'length does not match', 3, 5),
    'the first length': (lambda c, o: flipped(c, 1), 'length does not match', 0, 5),
    'the checksum of the length': (lambda c, o: flipped(c, o[1] + 9), 'length does not', 1, 5),
    'cut in the header': (lambda c, o: c[:o[5] + 7], 'cut short', 5, 5),
    'cut in the content': (lambda c, o: c[:o[4] + 999], 'cut short', 4, 4),
    'cut in the last checksum': (lambda c, o: c[:-2], 'cut short', 5, 5),
    'a hole of zeros': (lambda c, o: c[:o[2] + 5] + bytes(3000) + c[o[2] + 3005:], 'length', 2, 5),
    'bytes lost': (lambda c, o: c[:o[2] + 100] + c[o[2] + 400:], 'content does not match', 2, 5),
    'bytes put in': (lambda c, o: c[:o[3]] + b'what' + c[o[3]:], 'length does not match', 3, 6),
    'text at the end': (lambda c, o: c + b'# the end of it\n', 'length does not match', 6, 6),
    'a record of nothing': (lambda c, o: c[:o[1]] + framed(b'') + c[o[1]:], 'not an utter', 1, 6),
    'a record of noise': (lambda c, o: framed(os.urandom(99)) + c, 'not an utterance', 0, 6),
    'no mel': (lambda c, o: example(mel=None) + c, 'not an utterance', 0, 6),
    'a name that is not text': (lambda c, o: example(name=b'\xff\xfe') + c, 'not an utter', 0, 6),
    'a name with a NUL': (lambda c, o: example(name=b'a\0b') + c, "'a\\x00b', holds", 0, 6),
    'a long name': (lambda c, o: example(name=b'a' * 10 ** 5, mel=b'1') + c, 'a... does not', 0, 6),
    'half a sample': (lambda c, o: example(audio=b'123') + c, 'u does not hold whole', 0, 6),
    'half a frame': (lambda c, o: example(mel=b'1234') + c, 'u does not hold whole', 0, 6),
    'NaN in a mel': (lambda c, o: c[:o[4]] + example(mel=NAN) + c[o[4]:], 'not finite', 4, 6),
    'parameters that are not JSON': (lambda c, o: example(data=b'{') + c, 'not an utter', 0, 6),
}


@pytest.mark.parametrize('damage', sorted(DAMAGES))
def test_damage_is_named_and_the_rest_is_read(content, tmp_path, damage):
    whole, offsets = content
    mangle, told, which, left = DAMAGES[damage]
    path = str(tmp_path / 'train-00000-of-00001.tfrecord')
    with open(path, 'wb') as f:
        f.write(mangle(whole, offsets))
    found = list(shards.records(path, HP))
    fault, = [r for r in found if isinstance(r, shards.Fault)]
    assert (fault.path, fault.offset) == (path, offsets[which]) and told in fault.reason
    assert len(fault.reason) < 300
    assert '\n' not in str(fault) and str(fault).startswith(path + ', record at byte ')
    names = [r.name for r in found if isinstance(r, shards.Record)]
    assert len(names) == left and len(set(names)) == left
    # and the rest trains: a reader that skips it draws every clip of what is left
    clips = epoch(clip_shards.Reader([path], HP, skip=True), 0)
    expected = sum(FRAMES[int(name[1:])] // 8 for name in names)
    assert len(clips) == expected
    stopping = clip_shards.Reader([path], HP)
    assert len(list(stopping.clips())) < expected
    assert str(fault) in stopping.fault and '--damaged_records=skip' in stopping.fault


def test_files_that_are_none_are_named(tmp_path):
    (tmp_path / 'train-folder').mkdir()
    (tmp_path / 'train-empty').write_bytes(b'')
    fault, = shards.records(str(tmp_path / 'train-folder'), HP)
    assert 'cannot be read' in fault.reason
    assert list(shards.records(str(tmp_path / 'train-empty'), HP)) == []
    fault, = shards.records(str(tmp_path / 'train-gone'), HP)
    assert 'cannot be read' in fault.reason


def test_the_former_name_of_the_mel_profile_is_understood(tmp_path):
    """Shards of earlier versions call the profile weixsong `seed`."""
    hp = HP.replace(mel_profile='weixsong')
    data = b'{"sample_rate": 16000, "mel_profile": "seed"}'
    path = str(tmp_path / 'train-00000-of-00001.tfrecord')
    with open(path, 'wb') as f:
        f.write(example(data=data))
    assert [record.name for record in shards.records(path, hp)] == ['u']
    with pytest.raises(UserError, match='weixsong'):
        list(shards.records(path, HP))


def test_records_tell_their_mel_definition(tmp_path):
    """By any name of it; statistics by a hash."""
    hifigan = HP.replace(mel_profile='hifigan')
    mean, scale = (0.5,) * HP.n_mels, (2.0,) * HP.n_mels
    standardized = hifigan.replace(mel_stats_mean=mean, mel_stats_scale=scale)
    for hp in (HP, hifigan, standardized):
        path = str(tmp_path / 'train-00000-of-00001.tfrecord')
        shards.write(path, [shards.encode('u', np.zeros(512, 'i2'), np.ones((2, 80)), hp)])
        record, = shards.records(path, hp)
        assert record.name == 'u'
        for other in (HP, hifigan, standardized, HP.replace(padding='same')):
            if other.mel == hp.mel:
                assert len(list(shards.records(path, other))) == 1
            else:
                with pytest.raises(UserError, match='holds data of'):
                    list(shards.records(path, other))
        assert os.path.getsize(path) < 2000         # not 160 numbers a record


def test_flac_is_read_as_samples_are(tmp_path):
    random = np.random.RandomState(0)
    audio = (8000 * np.cumsum(random.randn(5120)) / 99).astype(np.int16)
    mel = random.randn(20, 80).astype(np.float32)
    plain, flac = (shards.encode('a', audio, mel, HP, flac) for flac in (False, True))
    assert flac == shards.encode('a', audio, mel, HP, True) and len(flac) < len(plain) - 1000
    path = str(tmp_path / 'train-00000-of-00001.tfrecord')
    cut = tf.train.Example.FromString(flac)
    content = cut.features.feature['flac'].bytes_list.value
    content[0] = b'fLaC' + bytes(99)
    shards.write(path, [flac, plain, cut.SerializeToString()])
    first, second, fault = shards.records(path, HP)
    for record in (first, second):
        assert record.name == 'a' and record.audio.dtype == np.int16
        np.testing.assert_array_equal(record.audio, audio)
        np.testing.assert_array_equal(record.mel, mel)
    assert 'the audio of a: FLAC that cannot be read' in fault.reason


def test_our_reader_reads_what_tensorflow_does(content, tmp_path):
    path = str(tmp_path / 'shard')
    with open(path, 'wb') as f:
        f.write(content[0])
    with tf.Graph().as_default(), tf.Session() as session:
        read = tf.data.make_one_shot_iterator(tf.data.TFRecordDataset(path)).get_next()
        theirs = [session.run(read) for _ in range(len(FRAMES))]
    ours = list(shards.payloads(path))
    assert [payload for _, payload in ours] == theirs
    assert [offset for offset, _ in ours] == content[1][:-1]
    assert b''.join(map(framed, theirs)) == content[0]


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    """The bundled speech in five shards: (directory of the files, pattern of the shards)."""
    directory = tmp_path_factory.mktemp('corpus')
    assert script('preprocess_data.py', '--wave_dir=' + WAVS, '--mel_dir=%s' % (directory / 'mels'),
                  '--data_dir=%s' % directory, '--preset=small', '--hparams=' + MODEL,
                  '--test_size=2', '--tfrecord_shards=5').returncode == 0
    return directory, str(directory / 'shards' / 'train-*.tfrecord')


def test_shards_hold_the_corpus(corpus):
    directory, pattern = corpus
    hp = params.load(str(directory / 'shards'))
    assert hp == params.load(str(directory))
    paths = shards.matching(pattern)
    assert [os.path.basename(path) for path in paths] == [
        'train-%05d-of-00005.tfrecord' % i for i in range(5)]
    held_out, = shards.matching(shards.test_beside(pattern))
    for found, filelist in ((paths, 'train.scp'), ([held_out], 'test.scp')):
        records = [r for path in found for r in shards.records(path, hp)]
        assert sorted(r.name for r in records) == file_lists.read_file_list(
            str(directory / filelist))
        for r in records:
            audio = audio_files.read_wav(os.path.join(WAVS, r.name + '.wav'), hp.sample_rate)
            np.testing.assert_array_equal(r.audio / np.float32(32768), audio)
            np.testing.assert_array_equal(
                r.mel, mel_files.read_mel(str(directory / 'mels' / (r.name + '.mel')), hp.n_mels))


@pytest.mark.slow
def test_the_same_corpus_gives_the_same_bytes(corpus, tmp_path):
    """With other numbers of workers, and where shards of another number were."""
    first = {path.name: path.read_bytes() for path in (corpus[0] / 'shards').iterdir()}
    for count, workers in ((7, 2), (5, 1)):
        assert script('preprocess_data.py', '--wave_dir=' + WAVS, '--mel_dir=%s' % (tmp_path / 'm'),
                      '--data_dir=%s' % tmp_path, '--preset=small', '--hparams=' + MODEL,
                      '--test_size=2', '--tfrecord_shards=%d' % count, '--num_workers=%d' % workers,
                      '--shard_dir=file://%s' % (tmp_path / 'elsewhere')).returncode == 0
    again = {path.name: path.read_bytes() for path in (tmp_path / 'elsewhere').iterdir()}
    assert sorted(again) == sorted(first) and len(first) == 7
    assert again == first


def epoch(reader, number, start=None):
    """[(name, start frame, place of the next)] that a reader draws in an epoch."""
    found = []
    for _, _, name, frame, place in reader.clips((number, 0, 0) if start is None else start):
        if place[0] != number:
            break
        found.append((name.decode(), int(frame), tuple(place)))
    return found


def clips_of(drawn):
    return [clip[:2] for clip in drawn]


def test_an_epoch_is_every_clip_once_and_goes_on_anywhere(corpus, monkeypatch):
    monkeypatch.setattr(clip_shards, 'CYCLE_LENGTH', 2)
    monkeypatch.setattr(clip_shards, 'SHUFFLE_BUFFER', 16)
    directory, pattern = corpus
    hp, paths = params.load(str(directory / 'shards')), shards.matching(pattern)
    frames = {r.name: min(len(r.audio) // hp.hop_length, len(r.mel))
              for path in paths for r in shards.records(path, hp)}
    reader = clip_shards.Reader(paths, hp, seed=3)
    first, second = epoch(reader, 0), epoch(reader, 1)
    for drawn in (first, second):
        counts = collections.Counter(name for name, _ in clips_of(drawn))
        assert counts == {name: n // hp.clip_frames for name, n in frames.items()}
        for name, n in frames.items():      # side by side, inside the utterance
            starts = sorted(frame for of, frame in clips_of(drawn) if of == name)
            assert starts == list(range(starts[0], n - hp.clip_frames + 1, hp.clip_frames))
    assert clips_of(first) != clips_of(second) and sorted(clips_of(first)) != sorted(first)
    assert first == epoch(clip_shards.Reader(paths, hp, seed=3), 0)
    assert clips_of(first) != clips_of(epoch(clip_shards.Reader(paths, hp, seed=4), 0))
    for i in (0, 5, len(first) // 2, len(first) - 2):
        assert epoch(reader, 0, first[i][2]) == first[i + 1:]
    # two hosts draw from shards of their own
    names = [{name for name, _ in clips_of(epoch(clip_shards.Reader(
        paths, hp, 3, num_hosts=2, task_index=i), 0))} for i in range(2)]
    assert not names[0] & names[1] and names[0] | names[1] == set(frames)


def run(monkeypatch, root, *arguments):
    monkeypatch.setattr(sys, 'argv', ['train.py', '--logdir_root=%s' % root, '--run_name=run',
                                      '--xla=off'] + list(arguments))
    return train.main()


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_training_on_shards_continues_to_the_same_bits(corpus, monkeypatch, tmp_path, capsys):
    data = ['--data=' + corpus[1], '--accumulate=2', '--max_steps=30',
            '--hparams=stft_weight=0.1,save_every=13']
    assert run(monkeypatch, tmp_path / 'whole', *data) == 0
    assert 'data: 5 shards' in capsys.readouterr().out
    shutil.copytree(str(tmp_path / 'whole'), str(tmp_path / 'cut'))
    for step in (26, 30):
        for path in (tmp_path / 'cut' / 'run').glob('**/*-%d.*' % step):
            path.unlink()
    assert run(monkeypatch, tmp_path / 'cut', *data) == 0
    assert 'from step 13' in capsys.readouterr().out
    assert_same_bits(weights(tmp_path / 'cut' / 'run'), weights(tmp_path / 'whole' / 'run'))
    with pytest.raises(UserError, match='reads shards on 1 hosts, and this command reads files'):
        run(monkeypatch, tmp_path / 'cut', '--filelist=%s' % (corpus[0] / 'train.scp'),
            '--wave_dir=' + WAVS, '--lc_dir=%s' % (corpus[0] / 'mels'))


@pytest.mark.slow
def test_what_cannot_be_trained_on_is_refused(corpus, content, monkeypatch, tmp_path, capsys):
    path = tmp_path / 'train-00000-of-00001.tfrecord'
    shards.finish(str(tmp_path), HP.replace(n_flows=2, n_layers=2))
    with pytest.raises(UserError, match='no shard matches'):
        run(monkeypatch, tmp_path, '--data=%s/train-*' % tmp_path)
    path.write_bytes(flipped(content[0], content[1][2] + 99))
    data = '--data=%s' % path
    with pytest.raises(UserError, match='record at byte %d: its content.*good checkpoint'
                                        % content[1][2]):
        run(monkeypatch, tmp_path, data, '--max_steps=20')
    assert run(monkeypatch, tmp_path, data, '--max_steps=3', '--damaged_records=skip') == 0
    skipped = 'skipped %s, record at byte %d' % (path, content[1][2])
    assert capsys.readouterr().err.count(skipped) == 1
    with pytest.raises(UserError, match="sample_rate': 16000.*sample_rate\": 22050"):
        run(monkeypatch, tmp_path / 'other', data, '--hparams=sample_rate=22050', '--max_steps=3')
    with pytest.raises(UserError, match='none of the 1 shards.* clip_samples=16384'):
        run(monkeypatch, tmp_path / 'long', data, '--hparams=clip_samples=16384',
            '--damaged_records=skip')
    with pytest.raises(UserError, match='1 shards cannot be dealt out to 2 hosts'):
        clip_shards.Reader([str(path)], HP, num_hosts=2, task_index=1)
    for arguments in (['--data=x', '--filelist=y'], ['--filelist=y']):
        with pytest.raises(SystemExit):
            run(monkeypatch, tmp_path, *arguments)


@pytest.mark.slow
def test_preprocess_refuses_what_shards_cannot_be(tmp_path):
    for flags, told in ((['--tfrecord_shards=0'], 'is not from 1'),
                        (['--shard_dir=x'], 'takes --tfrecord_shards'),
                        (['--tfrecord_shards=2', '--shard_dir=/dev/null/x'], 'cannot write')):
        done = script('preprocess_data.py', '--wave_dir=' + WAVS, '--mel_dir=%s' % (tmp_path / 'm'),
                      '--data_dir=%s' % tmp_path, *flags)
        assert done.returncode == 2 and told in done.stderr and 'Traceback' not in done.stderr
