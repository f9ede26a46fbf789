//! Random numbers for the stand-in, and tokens in WeChat's format made of them. Not for real secrets.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::secret::Secret;

/// Length of a token, without the number that WeChat puts before it.
const TOKEN_LENGTH: usize = 133;

/// A sequence of random numbers that is determined by its seed: a hash of the seed and a counter.
pub(crate) struct MockRandom {
    seed: u64,
    drawn: u64,
}

impl MockRandom {
    pub(crate) fn new(seed: u64) -> MockRandom {
        MockRandom { seed, drawn: 0 }
    }

    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.drawn).hash(&mut hasher);
        hasher.finish()
    }

    /// Returns a token as WeChat's APIs give it: a small number, an underscore and 133 characters.
    pub(crate) fn wechat_token(&mut self) -> Secret {
        Secret::new(format!("{}_{}", 60 + self.next() % 40, self.wecom_token().expose()))
    }

    /// Returns a token as WeCom gives it: 133 characters. Tickets have the same format here.
    pub(crate) fn wecom_token(&mut self) -> Secret {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
        let mut bits = 0;
        let text = (0..TOKEN_LENGTH).map(|n| {
            // Each number yields ten characters of six bits.
            bits = if n % 10 == 0 { self.next() } else { bits >> 6 };
            ALPHABET[(bits & 63) as usize]
        });
        let text = String::from_utf8(text.collect()).unwrap_or_default(); // It is ASCII.
        Secret::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn tokens_have_the_format_of_wechats_and_never_repeat() {
        let mut random = MockRandom::new(1);
        let mut earlier = BTreeSet::new();
        for _ in 0..1000 {
            let token = random.wechat_token();
            let text = token.expose();
            let (number, rest) = text.split_once('_').expect("an underscore");
            assert!(number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit()), "{text}");
            assert!(
                rest.len() == TOKEN_LENGTH
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
                "{text}"
            );
            assert!(earlier.insert(text.to_owned()));
        }
    }

    #[test]
    fn another_seed_gives_other_numbers_and_the_same_seed_the_same() {
        let numbers = |seed| [(); 3].map(|()| MockRandom::new(seed).next());
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
    }
}
