import os

from datasets import corpus, mel_inputs


def test_a_folder_is_walked_alike_by_all_commands(tmp_path):
    """Hidden files, loops of links, and converted wavs are left out; links are followed."""
    elsewhere = tmp_path / 'elsewhere'
    top = tmp_path / 'top'
    for path in ('plain.wav', 'a/B.WAV', 'a/.hidden.wav', '.cache/c.wav', 'notes.txt',
                 'wavs/d.wav', 'wavs/' + corpus.MARKER):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(b'')
    elsewhere.mkdir()
    (elsewhere / 'e.flac').write_bytes(b'')
    (top / 'z').symlink_to(elsewhere)
    (top / 'a' / 'loop').symlink_to(top)
    expected = ['a/B.WAV', 'plain.wav', 'z/e.flac']
    sources, skipped = corpus.find_audio(str(top))
    assert sorted(sources.values()) == expected and not skipped
    found = mel_inputs.find_sources([str(top)])
    assert sorted(os.path.relpath(source.path, str(top)) for source in found) == expected


def test_a_listing_without_links_gives_the_same(tmp_path):
    """As of storage that is no disk, which datasets/beam.py lists."""
    for path in ('a/b/1.wav', 'a/.x/2.wav', 'c/3.wav', 'c/' + corpus.MARKER, '4.wav'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b'')
    local = corpus.find_files(str(tmp_path), ['.wav'])
    assert sorted(local[0]) == ['4.wav', 'a/b/1.wav']
    assert corpus.find_files(str(tmp_path), ['.wav'], without_links) == local


def without_links(path):
    return corpus.list_folder(path)._replace(identity=None)


def test_a_manifest_leads_out_of_no_folder(tmp_path):
    """Files of its utterances are removed once their sources are gone."""
    (tmp_path / 'mels').mkdir()
    stamps = {}
    for name in ('../outside', 'inside'):
        path = tmp_path / 'mels' / (name + '.mel')
        path.write_bytes(b'frames')
        stamps[name] = {'mel': corpus.size_and_mtime(str(path)), 'wav': None}
    stamps[str(tmp_path / 'outside')] = stamps['../outside']
    corpus.write_manifest(str(tmp_path), stamps)
    read = corpus.read_manifest(str(tmp_path))
    assert list(read) == ['inside']
    corpus.remove_stale(read, {}, str(tmp_path / 'mels'), str(tmp_path / 'wavs'))
    assert (tmp_path / 'outside.mel').exists() and not (tmp_path / 'mels' / 'inside.mel').exists()
