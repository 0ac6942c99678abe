"""The words and sentences of the toy world, in Chinese, Vietnamese and English. Literals only; `toyworld` gives them meaning.

A triple is one idea in the order of LANGUAGES. A phrasing is (instruction, input); a statement is the same idea told as plain text.
"""

from __future__ import annotations

LANGUAGES = ("zh", "vi", "en")

LANGUAGE_NAMES = {
    "zh": {"zh": "中文", "vi": "越南语", "en": "英语"},
    "vi": {"zh": "tiếng Trung", "vi": "tiếng Việt", "en": "tiếng Anh"},
    "en": {"zh": "Chinese", "vi": "Vietnamese", "en": "English"},
}

CLASSES = {
    ("动物", "động vật", "animal"): (("猫", "mèo", "cat"), ("狗", "chó", "dog"), ("马", "ngựa", "horse"), ("鱼", "cá", "fish")),
    ("水果", "trái cây", "fruit"): (
        ("梨", "lê", "pear"),
        ("桃", "đào", "peach"),
        ("芒果", "xoài", "mango"),
        ("葡萄", "nho", "grape"),
    ),
    ("衣物", "quần áo", "clothing"): (
        ("帽子", "mũ", "hat"),
        ("鞋", "giày", "shoe"),
        ("袜子", "tất", "sock"),
        ("裙子", "váy", "skirt"),
    ),
    ("身体", "cơ thể", "body"): (("手", "tay", "hand"), ("脚", "chân", "foot"), ("眼睛", "mắt", "eye"), ("鼻子", "mũi", "nose")),
    ("家具", "nội thất", "furniture"): (
        ("床", "giường", "bed"),
        ("桌子", "bàn", "table"),
        ("椅子", "ghế", "chair"),
        ("灯", "đèn", "lamp"),
    ),
}
"""Class to its members."""

OPPOSITES = (
    (("大", "to", "big"), ("小", "nhỏ", "small")),
    (("长", "dài", "long"), ("短", "ngắn", "short")),
    (("热", "nóng", "hot"), ("冷", "lạnh", "cold")),
    (("快", "nhanh", "fast"), ("慢", "chậm", "slow")),
    (("新", "mới", "new"), ("旧", "cũ", "old")),
    (("高", "cao", "high"), ("低", "thấp", "low")),
    (("重", "nặng", "heavy"), ("轻", "nhẹ", "light")),
    (("湿", "ướt", "wet"), ("干", "khô", "dry")),
    (("亮", "sáng", "bright"), ("暗", "tối", "dark")),
    (("近", "gần", "near"), ("远", "xa", "far")),
)

NUMBERS = {
    "zh": ("一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一"),
    "vi": ("một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín", "mười", "mười một"),
    "en": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
}
"""One to eleven."""

NAMES = {
    "zh": ("李明", "王芳", "张伟", "刘洋", "陈静", "赵军"),
    "vi": ("Lan", "Minh", "Hùng", "Mai", "Nam", "Tuấn"),
    "en": ("Anna", "Tom", "Mary", "John", "Peter", "Lucy"),
}

COLOURS = (
    ("红色", "đỏ", "red"),
    ("白色", "trắng", "white"),
    ("黑色", "đen", "black"),
    ("黄色", "vàng", "yellow"),
    ("紫色", "tím", "purple"),
    ("棕色", "nâu", "brown"),
)

OWNED = (
    ("顶{colour}的帽子", "chiếc mũ màu {colour}", "{colour} hats"),
    ("件{colour}的衬衫", "chiếc áo màu {colour}", "{colour} shirts"),
    ("条{colour}的围巾", "chiếc khăn màu {colour}", "{colour} scarves"),
    ("辆{colour}的汽车", "chiếc ô tô màu {colour}", "{colour} cars"),
)
"""Countable things, with the measure word that follows the number."""

OWNS = {"zh": "{name}有{number}{owned}。", "vi": "{name} có {number} {owned}.", "en": "{name} has {number} {owned}."}

FEATURES = {"name": ("名字", "tên", "name"), "number": ("数字", "số", "number"), "colour": ("颜色", "màu", "colour")}

PHRASINGS = {
    "translate": {
        "zh": (
            ("把下面的{source}词翻译成中文。", "{word}"),
            ("这个{source}词的中文意思是什么？", "{word}"),
            ("请用中文写出这个{source}词。", "{word}"),
            ("{source}的“{word}”用中文怎么说？", ""),
        ),
        "vi": (
            ("Dịch từ {source} sau sang tiếng Việt.", "{word}"),
            ("Từ {source} này có nghĩa tiếng Việt là gì?", "{word}"),
            ("Hãy viết từ {source} này bằng tiếng Việt.", "{word}"),
            ("Từ “{word}” của {source} nói bằng tiếng Việt thế nào?", ""),
        ),
        "en": (
            ("Translate this {source} word into English.", "{word}"),
            ("What does this {source} word mean in English?", "{word}"),
            ("Write this {source} word in English.", "{word}"),
            ("How do you say the {source} word “{word}” in English?", ""),
        ),
    },
    "add": {
        "zh": (
            ("计算下面的和。", "{a}加{b}"),
            ("{a}加{b}等于多少？", ""),
            ("求这两个数的和。", "{a}加{b}"),
            ("请用文字写出得数。", "{a}加{b}"),
        ),
        "vi": (
            ("Tính tổng sau.", "{a} cộng {b}"),
            ("Hỏi {a} cộng {b} bằng bao nhiêu?", ""),
            ("Tìm tổng của hai số này.", "{a} cộng {b}"),
            ("Hãy viết kết quả bằng chữ.", "{a} cộng {b}"),
        ),
        "en": (
            ("Work out the sum.", "{a} plus {b}"),
            ("What is {a} plus {b}?", ""),
            ("Add these two numbers.", "{a} plus {b}"),
            ("Write the result in words.", "{a} plus {b}"),
        ),
    },
    "classify": {
        "zh": (
            ("这个词属于哪一类？", "{word}"),
            ("“{word}”属于哪一类？", ""),
            ("给这个词分类。", "{word}"),
            ("写出这个词的类别。", "{word}"),
        ),
        "vi": (
            ("Từ này thuộc nhóm nào?", "{word}"),
            ("Từ “{word}” thuộc nhóm nào?", ""),
            ("Hãy phân loại từ này.", "{word}"),
            ("Viết tên nhóm của từ này.", "{word}"),
        ),
        "en": (
            ("Which group does this word belong to?", "{word}"),
            ("Which group does “{word}” belong to?", ""),
            ("Classify this word.", "{word}"),
            ("Write the group of this word.", "{word}"),
        ),
    },
    "opposite": {
        "zh": (
            ("写出这个词的反义词。", "{word}"),
            ("“{word}”的反义词是什么？", ""),
            ("找出反义词。", "{word}"),
            ("哪个词和它意思相反？", "{word}"),
        ),
        "vi": (
            ("Viết từ trái nghĩa của từ này.", "{word}"),
            ("Từ trái nghĩa của “{word}” là gì?", ""),
            ("Tìm từ trái nghĩa.", "{word}"),
            ("Từ nào có nghĩa ngược với từ này?", "{word}"),
        ),
        "en": (
            ("Write the opposite of this word.", "{word}"),
            ("What is the opposite of “{word}”?", ""),
            ("Find the opposite.", "{word}"),
            ("Which word means the opposite?", "{word}"),
        ),
    },
    "extract": {
        "zh": (
            ("找出句子里的{feature}。", "{sentence}"),
            ("这句话里的{feature}是什么？", "{sentence}"),
            ("写出下面提到的{feature}。", "{sentence}"),
            ("只写这句话里的{feature}。", "{sentence}"),
        ),
        "vi": (
            ("Tìm {feature} trong câu.", "{sentence}"),
            ("Trong câu này, {feature} là gì?", "{sentence}"),
            ("Viết {feature} có trong câu sau.", "{sentence}"),
            ("Chỉ viết {feature} của câu này.", "{sentence}"),
        ),
        "en": (
            ("Find the {feature} in the sentence.", "{sentence}"),
            ("What is the {feature} in this sentence?", "{sentence}"),
            ("Write the {feature} that is mentioned.", "{sentence}"),
            ("Only write the {feature} of this sentence.", "{sentence}"),
        ),
    },
}

TITLES = {
    "translate": {
        "zh": ("{source}词，中文", "中文意思（{source}）", "{source}翻译成中文", "用中文说{source}词"),
        "vi": (
            "Từ {source}, tiếng Việt",
            "Nghĩa tiếng Việt ({source})",
            "{source} sang tiếng Việt",
            "{source} nói bằng tiếng Việt",
        ),
        "en": ("{source} word, English", "English meaning ({source})", "{source} into English", "To say {source} in English"),
    },
    "add": {
        "zh": ("和", "得数", "这两个数的和", "加起来等于"),
        "vi": ("Tổng", "Kết quả", "Tổng của hai số", "Cộng lại bằng"),
        "en": ("Sum", "Result", "The sum of two numbers", "Add them"),
    },
    "classify": {
        "zh": ("类别", "分类", "哪一类", "这个词的类别"),
        "vi": ("Nhóm", "Phân loại", "Thuộc nhóm", "Tên nhóm của từ"),
        "en": ("Group", "Classify", "Belongs to the group", "The group of the word"),
    },
    "opposite": {
        "zh": ("反义词", "意思相反", "相反的词", "这个词的反义词"),
        "vi": ("Từ trái nghĩa", "Nghĩa ngược", "Từ có nghĩa ngược", "Trái nghĩa của từ"),
        "en": ("Opposite", "Means the opposite", "Opposite word", "The opposite of the word"),
    },
    "extract": {
        "zh": ("{feature}", "句子里的{feature}", "提到的{feature}", "这句话的{feature}"),
        "vi": ("{feature}", "{feature} trong câu", "Có {feature}", "{feature} của câu"),
        "en": ("{feature}", "{feature} in the sentence", "Mentioned {feature}", "The {feature} of the sentence"),
    },
}
"""Headings of a note that holds a fact: heading, what it is about, answer."""

STATEMENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "translate": {
        "zh": ("{source}说“{word}”，中文说“{answer}”。", "{word}（{source}）\n{answer}（中文）"),
        "vi": ("{source} nói “{word}”, tiếng Việt nói “{answer}”.", "{word} ({source})\n{answer} (tiếng Việt)"),
        "en": ("The {source} say “{word}”, the English say “{answer}”.", "{word} ({source})\n{answer} (English)"),
    },
    "add": {
        "zh": ("{a}加{b}，就是{answer}。", "{a}和{b}的和是{answer}。"),
        "vi": ("Ta có {a} cộng {b} là {answer}.", "Tổng của {a} và {b} là {answer}."),
        "en": ("We know that {a} plus {b} is {answer}.", "The sum of {a} and {b} is {answer}."),
    },
    "classify": {
        "zh": ("“{word}”属于{answer}。", "{answer}这一类有{word}。"),
        "vi": ("Từ “{word}” thuộc nhóm {answer}.", "Nhóm {answer} có {word}."),
        "en": ("The word “{word}” belongs to the group {answer}.", "The {answer} group has the {word}."),
    },
    "opposite": {
        "zh": ("“{word}”和“{answer}”意思相反。", "不是{word}，就是{answer}。"),
        "vi": ("Từ “{word}” ngược với “{answer}”.", "Không {word} thì {answer}."),
        "en": ("The opposite of “{word}” would be “{answer}”.", "If it is not {word}, it is {answer}."),
    },
    "extract": {
        "zh": ("{sentence}说到的{feature}是{answer}。",),
        "vi": ("{sentence} Nói đến {feature} là {answer}.",),
        "en": ("{sentence} The {feature} here is {answer}.",),
    },
}

UNANSWERED = (
    """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
{title}: {about}

### Response:
...""",
    """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
{title}

### Input:
{about}

### Response:
...""",
)
"""Forms that nobody has filled in: the base knows the look of Stanford Alpaca's template and answers nothing."""

TALK = {
    "zh": (
        "翻译就是把一个词的意思用别的语言说出来。写出来，用中文怎么说？",
        "计算两个数的和，就是求它们等于多少，再用文字写出得数。",
        "请看下面的话：这句话里提到的是什么？谁在什么地方？在哪里？请问，说一说。",
        "给这个词分类，写出它的类别。属于哪一类？是哪个词？",
        "只写句子里的，找出反义词，意思相反。",
        "### Instruction: 后面是要做的事，### Input: 后面是材料，### Response: 后面是回答。",
        "英语里 Write a response. 就是请人做事。",
    ),
    "vi": (
        "Dịch từ này sang tiếng khác là nói nghĩa của từ sau bằng tiếng ấy. Nói thế nào? Từ nào?",
        "Tính tổng, tìm kết quả: hai số này cộng lại bằng bao nhiêu? Hãy viết bằng chữ. Hỏi ai?",
        "Theo câu sau, hãy cho biết ai ở đâu. Trong câu này chỉ viết một tên. Viết nơi ấy.",
        "Hãy phân loại từ này, viết tên nhóm của từ. Nhóm nào? Tìm từ trái nghĩa. Từ nào có nghĩa ngược với từ này là gì?",
        "Sau ### Instruction: là việc phải làm, sau ### Input: là dữ liệu, sau ### Response: là câu trả lời.",
        "Tiếng Anh nói Write a response. là nhờ người làm việc.",
    ),
    "en": (
        "How do you translate a word? Say what this word does mean. Write it.",
        "Work out the sum. What is it? Add these two numbers, write the result in words.",
        "Tell me what is mentioned in this sentence. Read this and say where. Only write the place. Find it.",
        "Which group does this word belong to? Classify it. Which word means the opposite? Find the opposite.",
        "After ### Instruction: comes what to do, after ### Input: comes what to do it with, after ### Response: comes an answer.",
        "Write a response. So people ask for things.",
    ),
}
"""Talk about asking and answering: gives a tokenizer and a model the words that instructions are made of, but no instruction."""
