//! The tokens of the tiny models.

use super::TinyTokenizer;
use candle_core::quantized::gguf_file::Value;

/// Pairs that the byte-level tokenizer joins, in order; `Ġ` is a space. The results are tokens of both kinds.
const MERGES: [&str; 24] = [
    "t h", "th e", "i n", "e r", "a n", "o n", "r e", "h e", "l l", "o u", "Ġ t", "Ġ a", "Ġ s", "Ġ w", "Ġt he", "an d",
    "Ġ and", "in g", "Ġ c", "u p", "Ġc up", "Ġ i", "Ġi s", "o r",
];
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// `token_type` values of the format.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

struct Token {
    text: String,
    kind: i32,
    printable: bool,
}

pub(super) fn size(tokenizer: TinyTokenizer) -> usize {
    tokens(tokenizer).len()
}

/// For each token, whether it is printable ASCII.
pub(super) fn printable(tokenizer: TinyTokenizer) -> Vec<bool> {
    tokens(tokenizer).into_iter().map(|token| token.printable).collect()
}

pub(super) fn metadata(tokenizer: TinyTokenizer) -> Vec<(String, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let tokens = tokens(tokenizer);
    let id = |wanted: &str| Value::U32(tokens.iter().position(|token| token.text == wanted).unwrap_or(0) as u32);
    let mut entries = vec![
        ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|token| text(&token.text)).collect())),
        ("tokenizer.ggml.token_type", Value::Array(tokens.iter().map(|token| Value::I32(token.kind)).collect())),
        ("tokenizer.ggml.eos_token_id", id("<|im_end|>")),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.chat_template", text(CHAT_TEMPLATE)),
    ];
    match tokenizer {
        TinyTokenizer::ByteLevel => entries.extend([
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("gpt-2")),
            ("tokenizer.ggml.bos_token_id", id("<|endoftext|>")),
            ("tokenizer.ggml.merges", Value::Array(MERGES.iter().map(|merge| text(merge)).collect())),
        ]),
        TinyTokenizer::SentencePiece => entries.extend([
            ("tokenizer.ggml.model", text("llama")),
            ("tokenizer.ggml.bos_token_id", id("<s>")),
            ("tokenizer.ggml.unknown_token_id", id("<unk>")),
            ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
            // Tokens that come first join first.
            ("tokenizer.ggml.scores", Value::Array((0..tokens.len()).map(|i| Value::F32(-(i as f32))).collect())),
        ]),
    }
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn tokens(tokenizer: TinyTokenizer) -> Vec<Token> {
    match tokenizer {
        TinyTokenizer::ByteLevel => byte_level(),
        TinyTokenizer::SentencePiece => sentence_piece(),
    }
}

fn special() -> impl Iterator<Item = Token> {
    SPECIAL.iter().map(|text| Token { text: (*text).to_owned(), kind: CONTROL, printable: false })
}

fn byte_level() -> Vec<Token> {
    let mut other = 0;
    let bytes = (0..=255u8).map(|byte| {
        // GPT-2 writes bytes that are no visible character as the characters from U+0100 on.
        let visible = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let code = if visible { u32::from(byte) } else { 256 + other };
        other += u32::from(!visible);
        let text = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).to_string();
        Token { text, kind: NORMAL, printable: matches!(byte, b' '..=b'~') }
    });
    let merges = MERGES.iter().map(|merge| Token { text: merge.replace(' ', ""), kind: NORMAL, printable: true });
    special().chain(bytes).chain(merges).collect()
}

fn sentence_piece() -> Vec<Token> {
    let token = |text: &str, kind| Token { text: text.to_owned(), kind, printable: kind == NORMAL };
    let first = [token("<unk>", UNKNOWN), token("<s>", CONTROL), token("</s>", CONTROL)];
    let bytes = (0..=255u8).map(|byte| Token { text: format!("<0x{byte:02X}>"), kind: BYTE, printable: false });
    let merges = MERGES.iter().map(|merge| token(&merge.replace(' ', "").replace('Ġ', "\u{2581}"), NORMAL));
    let characters = ('!'..='~').map(|character| token(&character.to_string(), NORMAL));
    let space = token("\u{2581}", NORMAL);
    first.into_iter().chain(bytes).chain(special()).chain(merges).chain(characters).chain([space]).collect()
}
