//! Redis's protocol (RESP 2): commands as bytes, and answers from bytes. Does no I/O.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use zeroize::Zeroizing;

/// Maximum size of an answer: ten thousand documents and more.
const MAX_ANSWER: usize = 64 << 20;

/// Maximum size of a line within one. Redis sends lengths and errors in lines, and no data.
const MAX_LINE: usize = 64 << 10;

/// How deep lists may stand within each other. Those of ROLE are two deep.
const MAX_DEPTH: usize = 8;

/// A command with its arguments. Wiped, as one of them may be a token or a password.
pub(super) struct RedisCommand {
    count: usize,
    arguments: Zeroizing<Vec<u8>>,
    /// The names of keys among the arguments, for messages.
    keys: Vec<String>,
}

/// Returns a command without arguments.
pub(super) fn command(name: &str) -> RedisCommand {
    RedisCommand { count: 0, arguments: Zeroizing::default(), keys: Vec::new() }.arg(name)
}

impl RedisCommand {
    /// Adds an argument.
    pub(super) fn arg(mut self, argument: impl AsRef<[u8]>) -> RedisCommand {
        let argument = argument.as_ref();
        let bytes = &mut self.arguments;
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
        self.count += 1;
        self
    }

    /// Adds each of these as an argument.
    pub(super) fn args(self, arguments: &[&str]) -> RedisCommand {
        arguments.iter().fold(self, |command, argument| command.arg(argument))
    }

    /// Adds the name of a key as an argument.
    pub(super) fn key(mut self, key: &str) -> RedisCommand {
        self.keys.push(key.to_owned());
        self.arg(key)
    }

    /// Adds the names of a script's keys, and before them how many these are.
    pub(super) fn keys(self, keys: &[&str]) -> RedisCommand {
        let command = self.number(keys.len());
        keys.iter().fold(command, |command, key| command.key(key))
    }

    /// Returns the names of the keys that it is about.
    pub(super) fn key_names(&self) -> &[String] {
        &self.keys
    }

    /// Adds a number as an argument.
    pub(super) fn number(self, number: impl Display) -> RedisCommand {
        self.arg(number.to_string())
    }

    /// Writes the command. In one piece: a packet for the head alone would cost time.
    pub(super) fn send(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.arguments.len() + 16));
        bytes.extend_from_slice(format!("*{}\r\n", self.count).as_bytes());
        bytes.extend_from_slice(&self.arguments);
        stream.write_all(&bytes)?;
        stream.flush()
    }
}

/// An answer, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedisValue {
    Nil,
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<RedisValue>),
    /// What Redis refuses: a code like `NOPERM`, and its words about it.
    Refusal {
        code: String,
        detail: String,
    },
}

impl RedisValue {
    /// Whether it is the number 1, which scripts return for "done".
    pub(super) fn is_one(&self) -> bool {
        *self == RedisValue::Number(1)
    }

    /// Returns the bytes; none for anything else.
    pub(super) fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            RedisValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the text; none for anything else.
    pub(super) fn into_text(self) -> Option<String> {
        String::from_utf8(self.into_bytes()?).ok()
    }

    /// Returns the items of a list; none for anything else.
    pub(super) fn into_list(self) -> Option<Vec<RedisValue>> {
        match self {
            RedisValue::List(items) => Some(items),
            _ => None,
        }
    }
}

/// Bytes that have arrived, of which complete answers are taken.
#[derive(Default)]
pub(crate) struct Answers {
    bytes: Vec<u8>,
    /// How far the first answer has been looked through, so that a long one is looked through once.
    scanned: usize,
    /// How many values that answer consists of from there on.
    missing: usize,
}

impl Answers {
    /// Adds bytes that have arrived.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first answer, if it is complete. Fails if it is not in Redis's protocol, or too large.
    pub(crate) fn take(&mut self) -> io::Result<Option<RedisValue>> {
        if !self.is_complete()? {
            return match self.bytes.len() > MAX_ANSWER {
                true => Err(malformed()),
                false => Ok(None),
            };
        }
        let mut answer = &self.bytes[..self.scanned];
        let value = parse(&mut answer, MAX_DEPTH)?;
        self.bytes.drain(..self.scanned);
        self.scanned = 0;
        Ok(Some(value))
    }

    /// Looks whether the first answer is complete, and ends at `scanned`.
    fn is_complete(&mut self) -> io::Result<bool> {
        if self.scanned == 0 {
            self.missing = 1;
        }
        while self.missing > 0 {
            let rest = &self.bytes[self.scanned..];
            let Some((kind, line, size)) = first_line(rest)? else { return Ok(false) };
            let (values, size) = match kind {
                b'$' => match length(line)? {
                    Some(length) if rest.len() < size + length + 2 => return Ok(false),
                    Some(length) => (0, size + length + 2),
                    None => (0, size),
                },
                b'*' => (length(line)?.unwrap_or_default(), size),
                _ => (0, size),
            };
            self.missing = self.missing - 1 + values;
            self.scanned += size;
        }
        Ok(true)
    }
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "it does not speak Redis's protocol")
}

/// Returns the kind of the value that begins here, the rest of its line, and the line's size. None if the line has no end yet.
fn first_line(bytes: &[u8]) -> io::Result<Option<(u8, &str, usize)>> {
    let Some(end) = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        return match bytes.len() < MAX_LINE {
            true => Ok(None),
            false => Err(malformed()),
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or_else(malformed)?;
    let (kind, line) = line.split_first().ok_or_else(malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| malformed())?;
    Ok(Some((*kind, line, end + 1)))
}

/// Returns the length of bytes or of a list; none for what is missing.
fn length(line: &str) -> io::Result<Option<usize>> {
    match line.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => match usize::try_from(length) {
            Ok(length) if length <= MAX_ANSWER => Ok(Some(length)),
            _ => Err(malformed()),
        },
        Err(_) => Err(malformed()),
    }
}

/// Parses the complete value at the beginning of `bytes`, and leaves what follows.
fn parse(bytes: &mut &[u8], depth: usize) -> io::Result<RedisValue> {
    let (kind, line, size) = first_line(bytes)?.ok_or_else(malformed)?;
    *bytes = &bytes[size..];
    match kind {
        b'+' => Ok(RedisValue::Bytes(line.as_bytes().to_vec())),
        b'-' => {
            let (code, detail) = line.split_once(' ').unwrap_or((line, ""));
            Ok(RedisValue::Refusal { code: code.to_owned(), detail: detail.to_owned() })
        }
        b':' => line.parse().map(RedisValue::Number).map_err(|_| malformed()),
        b'$' => {
            let Some(length) = length(line)? else { return Ok(RedisValue::Nil) };
            let (value, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
            *bytes = rest.strip_prefix(b"\r\n").ok_or_else(malformed)?;
            Ok(RedisValue::Bytes(value.to_vec()))
        }
        b'*' => {
            let Some(length) = length(line)? else { return Ok(RedisValue::Nil) };
            let inner = depth.checked_sub(1).ok_or_else(malformed)?;
            let items: io::Result<_> = (0..length).map(|_| parse(bytes, inner)).collect();
            Ok(RedisValue::List(items?))
        }
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> RedisValue {
        RedisValue::Bytes(text.into())
    }

    #[test]
    fn a_command_is_sent_with_the_lengths_of_its_arguments() {
        let mut sent = Vec::new();
        let eval = command("EVAL").arg("return 1").number(2).args(&["a", "b"]).arg(b"\r\n");
        eval.send(&mut sent).unwrap();
        let expected =
            b"*6\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n2\r\n$1\r\na\r\n$1\r\nb\r\n$2\r\n\r\n\r\n";
        assert_eq!(sent, expected);
    }

    #[test]
    fn answers_are_taken_whole_however_they_arrive() {
        let stream =
            b"+OK\r\n-NOPERM no, you may not\r\n:-3\r\n$-1\r\n$7\r\n{\r\n\"a\"}\r\n*-1\r\n\
                       *3\r\n*0\r\n*2\r\n$0\r\n\r\n:1\r\n$1\r\nx\r\n+next\r\n";
        let expected = [
            bytes("OK"),
            RedisValue::Refusal { code: "NOPERM".to_owned(), detail: "no, you may not".to_owned() },
            RedisValue::Number(-3),
            RedisValue::Nil,
            bytes("{\r\n\"a\"}"),
            RedisValue::Nil,
            RedisValue::List(vec![
                RedisValue::List(Vec::new()),
                RedisValue::List(vec![bytes(""), RedisValue::Number(1)]),
                bytes("x"),
            ]),
            bytes("next"),
        ];
        for size in [1, 2, 5, stream.len()] {
            let mut answers = Answers::default();
            let mut taken = Vec::new();
            for piece in stream.chunks(size) {
                answers.add(piece);
                while let Some(value) = answers.take().unwrap() {
                    taken.push(value);
                }
            }
            assert_eq!(taken, expected, "{size} bytes at a time");
        }
    }

    #[test]
    fn what_is_not_redis_s_protocol_is_an_error() {
        let deep = "*1\r\n".repeat(MAX_DEPTH + 1) + ":1\r\n";
        let long = "+".to_owned() + &"x".repeat(MAX_LINE);
        for wrong in [
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "\r\n",
            "+OK\n",
            "$x\r\n",
            "$-2\r\n",
            "$1\r\nab\r\n",
            "*99999999999\r\n",
            ":one\r\n",
            "%1\r\n+a\r\n+b\r\n",
            &deep,
            &long,
        ] {
            let mut answers = Answers::default();
            answers.add(wrong.as_bytes());
            assert!(answers.take().is_err(), "{wrong}");
        }
        let mut answers = Answers::default();
        answers.add(b"+\xff\r\n");
        assert!(answers.take().is_err());
    }
}
