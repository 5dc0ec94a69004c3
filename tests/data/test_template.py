"""What stands around every text: its tokens, what is truncated, and which templates are refused."""

from typing import Any

import pytest
from helpers.tables import data_settings

from emotion_lightning.data.batches import tokenize
from emotion_lightning.data.template import ROOM, Template, read_template
from emotion_lightning.errors import UserError
from emotion_lightning.models.backbone import BUNDLED

LABELS = ["joy", "anger"]
CHAT = (
    "{{ bos_token }}{% for message in messages %}<turn>{{ message['role'] }}\n{{ message['content'] | trim }}</turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
LONG = "word " * 200


def load_tokenizer(**changes: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BUNDLED, **changes)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A decoder's tokenizer, which puts <bos> before a text and nothing after it."""
    return load_tokenizer()


@pytest.fixture(scope="module")
def encoder() -> Any:
    """An encoder's tokenizer, with [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "joy", "anger", ",", "so", "happy", "!", "[", "]", "sep"]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def template_of(text: str, tokenizer: Any, **chosen: Any) -> Template:
    found = read_template(data_settings("sample", template=text, **chosen), LABELS, tokenizer)
    assert found is not None
    return found


def ids_of(text: str, template: Template, tokenizer: Any, max_tokens: int | None = 64) -> list[int]:
    found: list[int] = tokenize([text], tokenizer, max_tokens=max_tokens, template=template)[0].tolist()
    return found


# --------------------------------------------------------------------------------------------------------------- tokens


def test_without_a_template_texts_stand_by_themselves(tokenizer: Any) -> None:
    assert read_template(data_settings("sample"), LABELS, tokenizer) is None


@pytest.mark.parametrize(
    "text", ["Text: {text}\nEmotions:", "Is it {labels}? {text} Answer:", "{text}", "{labels}: {text}"]
)
def test_the_tokens_are_those_of_the_whole_text(tokenizer: Any, text: str) -> None:
    template = template_of(text, tokenizer)
    whole = text.replace("{labels}", "joy, anger").replace("{text}", "We won again")
    assert ids_of("We won again", template, tokenizer) == tokenizer(whole)["input_ids"]
    assert template.text == text.replace("{labels}", "joy, anger")


def test_label_names_stand_before_the_text_of_an_encoder(encoder: Any) -> None:
    template = template_of("{labels} [SEP] {text}", encoder)
    tokens = encoder.convert_ids_to_tokens(ids_of("So happy!", template, encoder))
    assert tokens == ["[CLS]", "joy", ",", "anger", "[SEP]", "so", "happy", "!", "[SEP]"]


def test_a_tokenizer_that_puts_a_space_before_every_text_itself_gets_none() -> None:
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", "▁", "▁Text", ":", "▁a", "▁b", "a"]
    backend = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=1))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
    template = template_of("Text: {text}", tokenizer)
    assert template.space == ""
    assert tokenizer.convert_ids_to_tokens(ids_of("a b", template, tokenizer)) == ["▁Text", ":", "▁a", "▁b"]


@pytest.mark.parametrize("max_tokens", [20, 24, 64])
def test_only_the_text_is_truncated(tokenizer: Any, max_tokens: int) -> None:
    template = template_of("Text: {text}\nOne word:", tokenizer, max_tokens=max_tokens)
    ids = ids_of(LONG, template, tokenizer, max_tokens)
    assert len(ids) == max_tokens
    whole = tokenizer(f"Text: {LONG.strip()}\nOne word:")["input_ids"]
    kept = max_tokens - len(template.after)
    assert ids == whole[:kept] + whole[-len(template.after) :]
    assert len(ids_of(LONG, template, tokenizer, None)) > 200


def test_the_last_token_is_that_of_the_template_whatever_the_text(tokenizer: Any) -> None:
    template = template_of("{text} Emotion:", tokenizer)
    last = tokenizer("Emotion:")["input_ids"][-1]
    found = tokenize(["", "No", LONG, "<eos>"], tokenizer, max_tokens=24, template=template)
    assert {int(found[i][-1]) for i in range(len(found))} == {last}


def test_a_text_cannot_end_its_part_with_a_special_token(tokenizer: Any, encoder: Any) -> None:
    template = template_of("<bos>{text}<eos>:", tokenizer)
    ids = ids_of("one <eos> <bos> two", template, tokenizer)
    assert ids.count(tokenizer.eos_token_id) == 1 and ids.count(tokenizer.bos_token_id) == 2
    assert ids_of("[SEP]", template_of("{text}", encoder), encoder).count(encoder.sep_token_id) == 1
    # The tokenizer reads bare texts as before.
    assert tokenizer("<eos>")["input_ids"] == [tokenizer.bos_token_id, tokenizer.eos_token_id]


def test_a_label_that_looks_like_a_place_stays_a_name(tokenizer: Any) -> None:
    data = data_settings("sample", template="{labels}: {text}")
    template = read_template(data, ["{text}", "{labels}"], tokenizer)
    assert template is not None and template.text == "{text}, {labels}: {text}"
    assert ids_of("We won", template, tokenizer) == tokenizer("{text}, {labels}: We won")["input_ids"]


# ----------------------------------------------------------------------------------------------------------------- chat


def test_chat_is_the_tokenizers_own_template_around_the_question() -> None:
    tokenizer = load_tokenizer(chat_template=CHAT)
    template = template_of("chat", tokenizer, question="Which of {labels}? {text}")
    assert template.text == "<bos><turn>user\nWhich of joy, anger? {text}</turn>\n<turn>model\n"
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which of joy, anger? We won"}], add_generation_prompt=True, return_dict=False
    )
    assert ids_of("We won", template, tokenizer) == asked
    assert asked.count(tokenizer.bos_token_id) == 1


def test_a_stored_template_needs_no_chat_template() -> None:
    template = template_of("chat", load_tokenizer(chat_template=CHAT), max_tokens=128)
    again = Template.from_plain(template.plain())
    other = load_tokenizer(chat_template=CHAT.replace("<turn>", "<other>"))
    assert again == template
    assert ids_of("We won", again, other) == ids_of("We won", template, load_tokenizer())


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        (None, "has no chat template; give a template of your own, such as"),
        ("{{ raise_exception('no user here') }}", "fails .no user here"),
        ("{% for message in messages %}{{ message['content'] | upper }}{% endfor %}", "does not repeat data.question"),
        ("{{ messages[0]['content'] }} {{ messages[0]['content'] }}", "does not repeat data.question once"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_refused(chat_template: str | None, message: str) -> None:
    with pytest.raises(UserError, match=rf"data.template=chat: .*{message}"):
        template_of("chat", load_tokenizer(chat_template=chat_template))


# -------------------------------------------------------------------------------------------------------------- refused


def test_a_template_that_leaves_too_few_tokens_is_refused(tokenizer: Any) -> None:
    template = template_of("one two three: {text}", tokenizer)
    least = template.length + ROOM
    assert template_of("one two three: {text}", tokenizer, max_tokens=least) == template
    with pytest.raises(UserError, match=f"leaves {ROOM - 1} for the text.*set data.max_tokens={least} or more"):
        template_of("one two three: {text}", tokenizer, max_tokens=least - 1)


def test_a_template_that_ends_with_the_padding_token_is_refused(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="ends with <pad>, which this tokenizer pads with"):
        template_of("{text}<pad>", tokenizer)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.template=Emotions of this:"], r"data.template=Emotions of this: has \{text\} nowhere"),
        (["data.template={text} and {text}"], r"has \{text\} more than once"),
        (["data.template={text} {label}"], r"has \{label\}, which is no place; it may have \{text\} and \{labels\}"),
        (["data.template={text} {text.__class__}"], r"has \{text.__class__\}, which is no place"),
        (["data.template={text} { Labels }"], r"has \{ Labels \}, which is no place"),
        (["data.template={text}\x1b[2J"], r"the control character '\\x1b'"),
        (["data.template=chat", "data.question=Which?"], r"data.question=Which\? has \{text\} nowhere"),
    ],
)
def test_templates_with_other_places_are_refused(settings: Any, overrides: list[str], message: str) -> None:
    from emotion_lightning.cli.override_grammar import quote_texts

    with pytest.raises(UserError, match=message):
        settings(*quote_texts("train", overrides, multirun=False))


@pytest.mark.parametrize("command", ["baseline", "evaluate"])
def test_commands_without_a_template_of_their_own_refuse_one(settings: Any, command: str) -> None:
    needed = ["data=sample", "run=somewhere"] if command == "evaluate" else []
    with pytest.raises(UserError, match="data.template is .*[Ll]eave it out"):
        settings(*needed, "data.template='{text}:'", command=command)


def test_other_braces_are_text(settings: Any) -> None:
    assert settings("""data.template='{"post": "{text}"}'""").data.template == '{"post": "{text}"}'


@pytest.mark.parametrize(
    "damage", [{"before": "x"}, {"after": [-1]}, {"after": [True]}, {"space": "x"}, {"text": 1}, {"other": 1}]
)
def test_a_damaged_template_is_refused(tokenizer: Any, damage: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Template.from_plain(template_of("{text}:", tokenizer).plain() | damage)
