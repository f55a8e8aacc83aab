"""Wrong answers to the exercises of lesson 00, and what each must be told."""

MISTAKES = {
    "00.tokens": [
        ("def answer(height, width, patch):\n    return height * width // patch\n", "along both of its sides"),
        ("def answer(height, width, patch):\n    return -(-height // patch) * -(-width // patch)\n", "Rounded up"),
        ("def answer(height, width, patch):\n    return (height // patch) * (width // patch) + 1\n", "class token"),
        ("def answer(height, width, patch):\n    return (height / patch) * (width / patch)\n", "count is an int"),
        ("def answer(height, width, patch):\n    return (height // patch) ** 2\n", "not square"),
    ],
    "00.cache": [
        (
            "def answer(positions, depth, kv_heads, head_dim, bytes_per_number):\n"
            "    return positions * depth * kv_heads * head_dim * bytes_per_number\n",
            "keys AND values",
        ),
        (
            "def answer(positions, depth, kv_heads, head_dim, bytes_per_number):\n"
            "    return 2 * positions * kv_heads * head_dim * bytes_per_number\n",
            "one block",
        ),
        (
            "def answer(positions, depth, kv_heads, head_dim, bytes_per_number):\n"
            "    return 2 * positions * depth * kv_heads * head_dim\n",
            "numbers, not bytes",
        ),
    ],
    "00.greedy": [
        (
            "def answer(next_logits, ids, eos_id, max_new_tokens):\n"
            "    said = list(ids)\n"
            "    while len(said) < len(ids) + max_new_tokens and (word := int(next_logits(said).argmax())) != eos_id:\n"
            "        said.append(word)\n"
            "    return said\n",
            "question is given back",
        ),
        (
            "def answer(next_logits, ids, eos_id, max_new_tokens):\n"
            "    return [int(next_logits(ids).argmax()) for _ in range(max_new_tokens)]\n",
            "each new word must be added",
        ),
        (
            "def answer(next_logits, ids, eos_id, max_new_tokens):\n"
            "    said = []\n"
            "    while len(said) < max_new_tokens:\n"
            "        said.append(int(next_logits(ids + said).argmax()))\n"
            "    return said\n",
            "goes on after the end mark",
        ),
        (
            "def answer(next_logits, ids, eos_id, max_new_tokens):\n"
            "    said = []\n"
            "    while (word := int(next_logits(ids + said).argmax())) != eos_id:\n"
            "        said.append(word)\n"
            "    return said\n",
            "max_new_tokens=2",
        ),
    ],
}
