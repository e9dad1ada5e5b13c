"""Every lesson runs and renders in both languages, with every number from the run."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest
import torch

from lessons import render

PATHS = render.lessons()
EXPRESSION = re.compile(r"\{([^{}]+)\}")
CODE = re.compile(r"`[^`\n]*`")


def expressions(text: str) -> list[str]:
    return sorted(" ".join(found.split()) for found in EXPRESSION.findall(text))


each_lesson = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def test_there_are_lessons_in_order() -> None:
    assert [path.stem[:2] for path in PATHS] == [f"{n:02}" for n in range(1, len(PATHS) + 1)]


@each_lesson
def test_it_renders_in_every_language(path: Path) -> None:
    assert tuple(render.rendered(path)) == render.LANGUAGES
    for language, page in render.rendered(path).items():
        text = page.markdown
        assert text.startswith(f"# {int(path.stem[:2])}. "), language
        assert re.findall(r"[(\"]figures/([^)\"]+)[)\"]", text) == list(page.figures)
        assert page.figures, "a lesson shows something"
        assert "grad_fn" not in text
        assert "Traceback" not in text


@each_lesson
def test_its_figures_are_pictures(path: Path) -> None:
    for name, svg in render.rendered(path)["en"].figures.items():
        if name.endswith(".html"):
            assert b"</html>" in svg.lower(), name
            continue
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5, f"{name} is empty"


@each_lesson
def test_both_languages_have_the_same_code_and_the_same_numbers(path: Path) -> None:
    def blocks(page: render.Page) -> list[str]:
        return re.findall(r"^ *```.*?^ *```", page.markdown, re.S | re.M)

    english, chinese = (render.prose(path, language) for language in ("en", "zh-TW"))
    assert blocks(render.rendered(path)["en"]) == blocks(render.rendered(path)["zh-TW"])
    for key in english:
        assert expressions(english[key]) == expressions(chinese[key]), key
        assert re.findall(r"^#+", english[key], re.M) == re.findall(r"^#+", chinese[key], re.M), key


@each_lesson
@pytest.mark.parametrize("language", render.LANGUAGES)
def test_no_measured_number_is_typed(path: Path, language: str) -> None:
    # A decimal fraction in prose can only have been measured; it must come from an expression.
    for key, text in render.prose(path, language).items():
        typed = re.findall(r"\d\.\d|\de-\d", CODE.sub("", EXPRESSION.sub("", text)))
        assert not typed, f"{key}: {typed}"


@each_lesson
def test_it_ends_with_two_or_three_solved_exercises(path: Path) -> None:
    keys = list(render.prose(path, "en"))
    exercises = [key for key in keys if re.fullmatch(r"exercise-\d", key)]
    assert len(exercises) in (2, 3)
    assert keys[-len(exercises) :] == exercises
    assert exercises == list(render.solutions(path))


@each_lesson
def test_the_chinese_is_written_as_in_taiwan(path: Path) -> None:
    text = "".join(render.prose(path, "zh-TW").values())
    simplified = set("这们说对时学会过还没为来种样从关开问题长东头发网络层间数据权询键训练习阵维") - set("會沒來")
    assert not simplified & set(text)
    for mainland, taiwan in {
        "信息": "資訊",
        "默认": "預設",
        "軟件": "軟體",
        "代碼": "程式碼",
        "內存": "記憶體",
        "緩存": "快取",
        "數據": "資料",
        "函數庫": "函式庫",
        "循環": "迴圈",
        "線程": "執行緒",
        "概率": "機率",
        "質量": "品質",
        "運行": "執行",
        "魯棒": "穩健",
        "掩碼": "遮罩",
        "標量": "純量",
        "點擊": "點選",
        "視頻": "影片",
    }.items():
        assert mainland not in text, f"{mainland} is {taiwan} in Taiwan"


def script(folder: Path, text: str, solution: str = "", chinese: str = "<!-- a -->\n# 標題") -> Path:
    for part, content in (("x.py", text), ("solutions/x.py", solution), ("zh-TW/x.md", chinese)):
        (folder / part).parent.mkdir(exist_ok=True)
        (folder / part).write_text(content)
    return folder / "x.py"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(render, "HERE", tmp_path)
    return tmp_path


def test_prose_is_filled_with_what_the_code_left(here: Path) -> None:
    path = script(
        here,
        '"""Doc."""\n\n# %%\nx = 2 / 3\nprint("out")\n\n# %% [markdown] a\n# # Title\n#\n# is {x:.3f}\n',
        "# %% a\nprint(1 + 1)\n",
        "<!-- a -->\n# 標題\n是 {x:.2f}",
    )
    made = render.render(path)
    assert made["en"].markdown == (
        '```python\nx = 2 / 3\nprint("out")\n```\n\n```{ .text .output }\nout\n```\n\n# Title\n\nis 0.667\n\n'
        '??? success "Solution"\n\n    ```python\n    print(1 + 1)\n    ```\n\n'
        "    ```{ .text .output }\n    2\n    ```\n"
    )
    assert "# 標題\n是 0.67\n" in made["zh-TW"].markdown
    assert '??? success "解答"' in made["zh-TW"].markdown


@pytest.mark.parametrize(
    ("text", "solution", "message"),
    [
        ("# %% [markdown] a\n# hello\nx = 1\n", "", r"x\.py:3: prose is a comment"),
        ("# %% [markdown] b\n# hello\n", "", r"has the parts \['a'\]; the script has \['b'\]"),
        ("# %% [markdown] a\n# {missing}\n", "", r"x\.py, a \(en\): NameError"),
        ("# %% [markdown] a\n# hello\n", "# %% c\nx = 1\n", r"no exercise for the solutions \['c'\]"),
        (
            "# %% [markdown] a\n# hi\n# %%\nimport matplotlib.pyplot as plt\nplt.figure()\n",
            "",
            r"x\.py:3: give the figure",
        ),
    ],
)
def test_a_lesson_that_cannot_be_rendered_is_refused(here: Path, text: str, solution: str, message: str) -> None:
    with pytest.raises(render.LessonError, match=message):
        render.render(script(here, text, solution))


def test_an_error_in_a_lesson_names_its_line(here: Path) -> None:
    path = script(here, "# %% [markdown] a\n# hello\n\n# %%\nx = 1\nraise KeyError\n")
    with pytest.raises(KeyError) as caught:
        render.render(path)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno) == (path, 5)  # counted from 0


def test_rendering_leaves_everything_as_it_was(here: Path) -> None:
    path = script(here, "# %% [markdown] a\n# hi\n# %%\nimport torch\ntorch.manual_seed(9)\ntorch.rand(3)\n")
    before, show, settings = torch.get_rng_state(), plt.show, dict(plt.rcParams)
    render.render(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert plt.show is show
    assert dict(plt.rcParams) == settings
