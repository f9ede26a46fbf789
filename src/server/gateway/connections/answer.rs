//! Parses WeChat's answers: the head, and where the body ends. Strict where two parsers could differ. Reads no connection.

use std::mem::MaybeUninit;

use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use crate::server::headers::values;

/// How many headers an answer may have.
const MAX_HEADERS: usize = 100;

/// How many bytes the lines of a chunked body may have besides its data, each of them, and its trailers together.
const MAX_CHUNK_LINES: usize = 16 * 1024;

/// How many digits the size of a chunk may have.
const MAX_SIZE_DIGITS: usize = 15;

/// An answer that is not HTTP, or that could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: StatusCode,
    /// As they came.
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// Whether another request may follow on the connection, once the body has been read.
    pub(crate) is_kept: bool,
}

impl AnswerHead {
    /// Parses the head at the beginning of `bytes`, and returns it with its length; `None` if it is not complete. `method` is
    /// that of the request.
    pub(crate) fn parse(
        bytes: &[u8],
        method: &Method,
    ) -> Result<Option<(AnswerHead, usize)>, Malformed> {
        let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut headers);
        let httparse::Status::Complete(length) = status.map_err(|_| Malformed)? else {
            return Ok(None);
        };
        let code = parsed.code.unwrap_or_default();
        let status = StatusCode::from_u16(code).map_err(|_| Malformed)?;
        // One copy for the values of all headers.
        let copy = Bytes::copy_from_slice(&bytes[..length]);
        let shared = |value: &[u8]| {
            let begin = (value.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
            let end = begin.checked_add(value.len()).filter(|end| *end <= length);
            end.map_or_else(|| Bytes::copy_from_slice(value), |end| copy.slice(begin..end))
        };
        let mut headers = HeaderMap::with_capacity(parsed.headers.len());
        for httparse::Header { name, value } in parsed.headers.iter() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Malformed)?;
            let value = HeaderValue::from_maybe_shared(shared(value)).map_err(|_| Malformed)?;
            headers.append(name, value);
        }
        let has_keep_alive = parsed.version == Some(1);
        let framing = Framing::of(status, &headers, method, has_keep_alive)?;
        let is_kept = has_keep_alive
            && framing != Framing::UntilClosed
            && !values(&headers, header::CONNECTION).any(closes);
        Ok(Some((AnswerHead { status, headers, framing, is_kept }, length)))
    }
}

/// Whether a value of `Connection` says that no other request may follow.
fn closes(value: &HeaderValue) -> bool {
    let mut words = value.as_bytes().split(|byte| *byte == b',');
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Where the body of an answer ends (RFC 9112, 6.3), as far as it has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    Chunked(Chunks),
    UntilClosed,
}

impl Framing {
    fn of(
        status: StatusCode,
        headers: &HeaderMap,
        method: &Method,
        is_http_1_1: bool,
    ) -> Result<Framing, Malformed> {
        let has_no_body = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *method == Method::HEAD;
        if has_no_body {
            return Ok(Framing::Length(0));
        }
        let coding = values(headers, header::TRANSFER_ENCODING).last();
        if let Some(coding) = coding {
            let last = coding.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            return match last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                // HTTP/1.0 has no codings: what follows is anything.
                _ if !is_http_1_1 => Err(Malformed),
                true => Ok(Framing::Chunked(Chunks::default())),
                false => Ok(Framing::UntilClosed),
            };
        }
        let lines = values(headers, header::CONTENT_LENGTH);
        let mut lengths = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let Some(first) = lengths.next() else { return Ok(Framing::UntilClosed) };
        let length = number(first).ok_or(Malformed)?;
        match lengths.all(|other| number(other) == Some(length)) {
            true => Ok(Framing::Length(length)),
            false => Err(Malformed),
        }
    }

    /// Whether the body has been read to its end.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunks) => chunks.at == ChunkPart::End,
            Framing::UntilClosed => false,
        }
    }

    /// Returns how much of the body is still to come, in bytes, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Framing::Length(left) => Some(*left),
            Framing::Chunked(_) if self.is_over() => Some(0),
            Framing::Chunked(_) | Framing::UntilClosed => None,
        }
    }

    /// Takes what is no data from the beginning of `bytes`, which follow what was taken before. Returns how many bytes that
    /// are, and how many bytes of data follow. If both are 0, more has to come.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(usize, usize), Malformed> {
        match self {
            Framing::Length(left) => {
                let data = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= data as u64;
                Ok((0, data))
            }
            Framing::Chunked(chunks) => chunks.take(bytes),
            Framing::UntilClosed => Ok((0, bytes.len())),
        }
    }
}

/// A chunked body, as far as it has been read (RFC 9112, 7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunks {
    at: ChunkPart,
    /// The size of the chunk as far as it is known, then how much of the chunk is to come.
    left: u64,
    digits: usize,
    /// How many bytes of the current line, or of all trailers, have come.
    line: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkPart {
    #[default]
    Size,
    /// What follows the size up to the end of its line.
    Extension,
    /// The LF after the size.
    SizeEnd,
    Data,
    /// The CR after the data.
    DataCr,
    DataLf,
    /// The first character of a trailer, or of the empty line at the end.
    TrailerBegin,
    Trailer,
    TrailerLf,
    /// The last LF.
    LastLf,
    End,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<(usize, usize), Malformed> {
        for (place, byte) in bytes.iter().enumerate() {
            match self.at {
                ChunkPart::Data => {
                    let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                    let data = left.min(bytes.len() - place);
                    self.left -= data as u64;
                    if self.left == 0 {
                        self.at = ChunkPart::DataCr;
                    }
                    return Ok((place, data));
                }
                ChunkPart::End => return Ok((place, 0)),
                _ => self.step(*byte)?,
            }
        }
        Ok((bytes.len(), 0))
    }

    /// Takes a byte that is no data.
    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINES {
            return Err(Malformed);
        }
        self.at = match (self.at, byte) {
            (ChunkPart::Size, digit)
                if digit.is_ascii_hexdigit() && self.digits < MAX_SIZE_DIGITS =>
            {
                let digit = char::from(digit).to_digit(16).unwrap_or_default();
                self.left = self.left * 16 + u64::from(digit);
                self.digits += 1;
                ChunkPart::Size
            }
            (ChunkPart::Size, b'\r') if self.digits > 0 => ChunkPart::SizeEnd,
            (ChunkPart::Size, b';' | b' ' | b'\t') if self.digits > 0 => ChunkPart::Extension,
            (ChunkPart::Extension, b'\r') => ChunkPart::SizeEnd,
            (ChunkPart::Extension, byte) if byte != b'\n' => ChunkPart::Extension,
            (ChunkPart::SizeEnd, b'\n') => {
                (self.digits, self.line) = (0, 0);
                if self.left > 0 { ChunkPart::Data } else { ChunkPart::TrailerBegin }
            }
            (ChunkPart::DataCr, b'\r') => ChunkPart::DataLf,
            (ChunkPart::DataLf, b'\n') => {
                self.line = 0;
                ChunkPart::Size
            }
            (ChunkPart::TrailerBegin, b'\r') => ChunkPart::LastLf,
            (ChunkPart::Trailer, b'\r') => ChunkPart::TrailerLf,
            (ChunkPart::TrailerBegin | ChunkPart::Trailer, byte) if byte != b'\n' => {
                ChunkPart::Trailer
            }
            (ChunkPart::TrailerLf, b'\n') => ChunkPart::TrailerBegin,
            (ChunkPart::LastLf, b'\n') => ChunkPart::End,
            _ => return Err(Malformed),
        };
        Ok(())
    }
}

/// Returns a number of digits and nothing else, in a list whose words may have blanks around them.
fn number(word: &[u8]) -> Option<u64> {
    let digits = word.trim_ascii();
    let text = std::str::from_utf8(digits).ok()?;
    text.parse().ok().filter(|_| digits.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<(AnswerHead, usize)>, Malformed> {
        AnswerHead::parse(text.as_bytes(), &Method::GET)
    }

    /// Reads a body that arrives in pieces of this size. Returns its data, and how many bytes it has altogether.
    fn read(
        mut framing: Framing,
        bytes: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, usize), Malformed> {
        let (mut data, mut place) = (Vec::new(), 0);
        for end in (0..bytes.len()).step_by(piece).map(|begin| (begin + piece).min(bytes.len())) {
            while !framing.is_over() && place < end {
                let (skipped, length) = framing.take(&bytes[place..end])?;
                data.extend_from_slice(&bytes[place + skipped..][..length]);
                place += skipped + length;
            }
        }
        Ok((data, place))
    }

    #[test]
    fn the_end_of_a_body_is_told_by_the_head() {
        let chunked = Framing::Chunked(Chunks::default());
        for (head, expected, is_kept) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n", Framing::Length(7), true),
            (
                "HTTP/1.1 200\r\nContent-Length: 7, 7\r\ncontent-length: 7\r\n",
                Framing::Length(7),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: x, Close\r\n",
                Framing::Length(7),
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 7\r\n", Framing::Length(7), false),
            ("HTTP/1.1 200 OK\r\n", Framing::UntilClosed, false),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n", Framing::Length(0), true),
            ("HTTP/1.1 304 Not Modified\r\n", Framing::Length(0), true),
            ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n", Framing::Length(0), true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n", chunked, true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: gzip, chunked\r\n",
                chunked,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
                chunked,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n",
                Framing::UntilClosed,
                false,
            ),
        ] {
            let (parsed, length) = parse(&format!("{head}\r\nrest")).unwrap().expect(head);
            assert_eq!((parsed.framing, parsed.is_kept), (expected, is_kept), "{head}");
            assert_eq!(length, head.len() + 2, "{head}");
        }
        let head =
            AnswerHead::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", &Method::HEAD);
        assert_eq!(head.unwrap().unwrap().0.framing, Framing::Length(0), "the answer to HEAD");
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_none() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 8\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 7, 8\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +7\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: \r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0x7\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n",
            "HTTP/1.1 200 OK\r\nx-a : 1\r\n",
            "HTTP/1.1 200 OK\r\nx-a: 1\r\n folded\r\n",
            "HTTP/1.1 200 OK\r\nx-a: \0\r\n",
            "HTTP/1.1 099 Low\r\n",
            "HTTP/2 200 OK\r\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert_eq!(parse(&format!("{head}\r\n")).map(|_| ()), Err(Malformed), "{head}");
        }
        let many = "x: 1\r\n".repeat(MAX_HEADERS + 1);
        assert!(parse(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
        assert!(parse("HTTP/1.1 200 OK\r\nx: 1\r\n").unwrap().is_none(), "it is not complete");
    }

    #[test]
    fn headers_arrive_as_they_came_and_in_small_letters() {
        let text = "HTTP/1.1 302 Found\r\nLocation:  /x \r\nSet-Cookie: a=1\r\nSet-Cookie: b=\u{503c}\r\n\r\n";
        let (parsed, _) = parse(text).unwrap().unwrap();
        assert_eq!(
            (parsed.status, &parsed.headers["location"]),
            (StatusCode::FOUND, &HeaderValue::from_static("/x"))
        );
        let cookies: Vec<_> =
            parsed.headers.get_all("set-cookie").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(cookies, [b"a=1".as_slice(), "b=\u{503c}".as_bytes()]);
    }

    #[test]
    fn a_body_is_read_alike_however_it_arrives_and_no_further_than_its_end() {
        for (framing, bytes, expected) in [
            (Framing::Length(5), "hellonext", "hello"),
            (Framing::Chunked(Chunks::default()), "5\r\nhello\r\n0\r\n\r\nnext", "hello"),
            (
                Framing::Chunked(Chunks::default()),
                "2;a=\"b\"\r\nhe\r\n03 \r\nllo\r\n000\r\nX-Trailer: 1\r\nB: 2\r\n\r\nnext",
                "hello",
            ),
        ] {
            for piece in 1..=bytes.len() {
                let (data, length) = read(framing, bytes.as_bytes(), piece).expect(bytes);
                assert_eq!((data, length), (expected.into(), bytes.len() - 4), "{bytes} {piece}");
            }
        }
    }

    #[test]
    fn a_chunk_that_is_not_exactly_one_is_none() {
        let long = format!("1;{}\r\n", "x".repeat(MAX_CHUNK_LINES));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(MAX_CHUNK_LINES));
        for bytes in [
            "\r\n",
            ";a\r\n",
            "g\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1\n",
            "1\rx",
            "1;a\nb",
            "1\r\nab\r\n",
            "1\r\na\n",
            "0\r\n\n",
            "0\r\na\n",
            "1000000000000000\r\n",
            &long,
            &trailers,
        ] {
            let read = read(Framing::Chunked(Chunks::default()), bytes.as_bytes(), bytes.len());
            assert_eq!(read.map(|_| ()), Err(Malformed), "{bytes:.20}");
        }
    }
}
