import numpy as np
import pytest
import torch
from PIL import Image

from fer_lightning.data.views import center, fit
from fer_lightning.errors import InputError
from fer_lightning.models.inputs import face_batch


def face(height=20, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def as_tensor(array):
    return torch.from_numpy(array).permute(2, 0, 1)


def test_a_batch_of_the_right_size_is_left_as_it_is():
    batch = torch.stack([as_tensor(face(seed=seed)) for seed in range(3)])
    assert face_batch(batch, 20) is batch
    assert face_batch(batch) is batch


@pytest.mark.parametrize("form", [lambda a: a, Image.fromarray, as_tensor], ids=["array", "PIL", "tensor"])
def test_one_or_a_list_of_every_form_becomes_a_batch(form):
    wanted = torch.stack([as_tensor(face(seed=seed)) for seed in range(2)])
    assert torch.equal(face_batch([form(face(seed=seed)) for seed in range(2)], 20), wanted)
    assert torch.equal(face_batch(form(face()), 20), wanted[:1])


def test_other_sizes_are_brought_to_that_of_the_training():
    wanted = torch.stack([as_tensor(center(fit(face(*shape), 16), 16)) for shape in ((30, 24), (9, 12))])
    assert torch.equal(face_batch([face(30, 24), Image.fromarray(face(9, 12))], 16), wanted)
    batch = np.stack([face(30, 24), face(30, 24)])
    assert torch.equal(face_batch(batch, 16)[0], wanted[0])
    assert torch.equal(face_batch(torch.from_numpy(batch).permute(0, 3, 1, 2), 16)[1], wanted[0])


def test_gray_pictures_are_rgb_and_a_photograph_is_upright():
    gray = Image.fromarray(face()[..., 0])
    assert torch.equal(face_batch(gray)[0, 0], face_batch(gray)[0, 2])
    turned = Image.fromarray(face(10, 20))
    turned.getexif()[0x0112] = 6  # to be turned by a quarter
    assert face_batch(turned).shape == (1, 3, 20, 10)


@pytest.mark.parametrize(
    ("faces", "said"),
    [
        (torch.rand(2, 3, 20, 20) * 255, r"torch\.float32 \(2, 3, 20, 20\)"),
        (torch.zeros(2, 20, 20, 3, dtype=torch.uint8), r"torch\.uint8 \(2, 20, 20, 3\)"),
        (torch.zeros(20, 20, dtype=torch.uint8), r"torch\.uint8 \(20, 20\)"),
        (face().astype(np.float64), r"float64 \(20, 20, 3\)"),
        (face()[..., 0], r"uint8 \(20, 20\)"),
        ([as_tensor(face()).float()], r"torch\.float32 \(3, 20, 20\)"),
        ([], "an empty list"),
        ("face.png", "not str"),
        (None, "not NoneType"),
    ],
)
def test_anything_else_is_refused_with_what_is_expected(faces, said):
    with pytest.raises(InputError, match=rf"uint8 RGB in 0 \.\.\. 255.*{said}"):
        face_batch(faces, 20)


def test_several_sizes_need_one_to_be_brought_to():
    with pytest.raises(InputError, match="several sizes"):
        face_batch([face(), face(30, 30)])
