"""Damages to the bytes of a file, or of a text, drawn by a random generator."""
import random

NUMBERS = ['0', '-1', '1e400', '-0.0', 'nan', 'inf', '9' * 30, '1' * 5000, '0x10', '4294967296',
           '2147483648', '9223372036854775808', '1e-320', '007', '+5', '1_0', '\u0663']
WORDS = ['', 'null', 'true', '""', '{}', '[]', '[' * 2000, '{"a":' * 2000, '\0', '\ufeff', '..',
         '../../x', '/', '/etc/passwd', '\\', '\r', '\n', '\u2028', '\ud7ff', '%s', '|', ',', '=',
         ' ', 'a' * 70000, '"', "'", 'seed', 'tacotron2']


def mutate(content: bytes, rng: random.Random, is_text: bool) -> bytes:
    """`content` with one to four damages."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        damage = rng.choice(TEXT_DAMAGES + DAMAGES[:4] if is_text else DAMAGES)
        content = damage(bytearray(content), rng)
    return bytes(content)


def near(content, rng):
    """A place in `content`: near its beginning, near its end, or anywhere."""
    size = len(content)
    low, high = rng.choice([(0, 200), (0, 5000), (0, size), (size - 300, size)])
    return rng.randint(max(0, low), min(size, high))


def flip(content, rng):
    if content:
        content[near(content[:-1], rng)] ^= 1 << rng.randrange(8)
    return content


def cut(content, rng):
    return content[:near(content, rng)]


def remove(content, rng):
    first = near(content, rng)
    del content[first:first + rng.choice([1, 2, 4, 100, 5000])]
    return content


def insert(content, rng):
    first = near(content, rng)
    content[first:first] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 2, 4, 60])))
    return content


def set_number(content, rng):
    first, size = near(content, rng), rng.choice([1, 2, 4, 8])
    value = rng.choice([0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1,
                        2 ** 63, 2 ** 64 - 1, rng.randrange(2 ** 64)]) % 256 ** size
    content[first:first + size] = value.to_bytes(size, rng.choice(['little', 'big']))
    return content


def repeat(content, rng):
    first = near(content, rng)
    piece = content[first:first + rng.choice([4, 16, 500])]
    place = near(content, rng)
    content[place:place] = piece * rng.choice([1, 2, 50])
    return content


def fill(content, rng):
    first, size = near(content, rng), rng.choice([4, 64, 3000])
    content[first:first + size] = bytes([rng.choice([0, 255])]) * size
    return content


def token(content, rng):
    """Another number or word in place of a run of letters or digits."""
    text = content.decode('utf-8', 'replace')
    start = rng.randrange(len(text) + 1)
    end = start
    while end < len(text) and (text[end].isalnum() or text[end] in '.-_'):
        end += 1
    said = text[:start] + rng.choice(NUMBERS + WORDS) + text[end:]
    return said.encode('utf-8', 'replace')


def swap(content, rng):
    """Two words of a text change places."""
    words = content.decode('utf-8', 'replace').split(' ')
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    words[i], words[j] = words[j], words[i]
    return ' '.join(words).encode('utf-8', 'replace')


DAMAGES = [flip, remove, insert, cut, set_number, repeat, fill]
TEXT_DAMAGES = [token, token, token, swap]
