"""Language: the decoders that read visual tokens beside words, and the tokenizer."""
