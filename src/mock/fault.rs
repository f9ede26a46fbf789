//! The faults on demand: their names, the number that some take, and how often they strike.
//! The one table of them; what each does to an answer is told in `effect`.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Errcode,
    Http,
    Slow,
    Hang,
    Reset,
    Close,
    Lost,
    Nothttp,
    Garbage,
    Html,
    Empty,
    Redirect,
    Echo,
    Escape,
    Array,
    Null,
    Depth,
    Huge,
    Truncated,
    Half,
    Drip,
    Notoken,
    Emptytoken,
    Longtoken,
    Badtoken,
    Noexpiry,
    Zero,
    Negative,
    Forever,
    Fraction,
    String,
    Errzero,
    Both,
}

/// A line of the table: the name as typed, and what comes of it.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    kind: Kind,
    /// What `:N` says, and an example of it; `None` where there is no number.
    number: Option<(&'static str, i64)>,
    pub(crate) about: &'static str,
}

/// Every fault. Those that say "the right answer" have asked the rules: a token was minted behind them where one was due.
pub(crate) const ENTRIES: &[Entry] = &[
    numbered(
        "errcode",
        Kind::Errcode,
        ("N", 40164),
        "HTTP 200 with this errcode, in WeChat's words where they are known",
    ),
    numbered("http", Kind::Http, ("STATUS", 502), "this HTTP status and a gateway's page"),
    numbered("slow", Kind::Slow, ("SECONDS", 1), "the right answer, late"),
    plain("hang", Kind::Hang, "no answer, and the connection stays open"),
    plain("reset", Kind::Reset, "no answer; the connection is reset"),
    plain("close", Kind::Close, "no answer; the connection is closed"),
    plain("lost", Kind::Lost, "the right answer is lost: the connection is reset after the mint"),
    plain("nothttp", Kind::Nothttp, "bytes that are not HTTP, then the connection is closed"),
    plain("garbage", Kind::Garbage, "HTTP 200 with a binary body"),
    plain("html", Kind::Html, "HTTP 200 with a login page, as a captive portal answers"),
    plain("empty", Kind::Empty, "HTTP 200 without a body"),
    plain("redirect", Kind::Redirect, "302 to /elsewhere"),
    plain(
        "echo",
        Kind::Echo,
        "errcode 40013 whose text repeats the whole request, secret included",
    ),
    plain(
        "escape",
        Kind::Escape,
        "errcode 40013 whose text has terminal escapes, line ends and bidi marks",
    ),
    plain("array", Kind::Array, "an array where an object is due"),
    plain("null", Kind::Null, "null where an object is due"),
    plain("depth", Kind::Depth, "JSON nested 10,000 deep"),
    plain("huge", Kind::Huge, "the right answer behind 512 MiB of padding inside the JSON"),
    plain(
        "truncated",
        Kind::Truncated,
        "half of the right answer, less than its Content-Length, then the connection is closed",
    ),
    plain(
        "half",
        Kind::Half,
        "the right answer cut in the middle, with a Content-Length that fits",
    ),
    plain("drip", Kind::Drip, "the right answer, a byte a second"),
    plain("notoken", Kind::Notoken, "the right answer without its token or ticket"),
    plain("emptytoken", Kind::Emptytoken, "the right answer with an empty token"),
    plain("longtoken", Kind::Longtoken, "the right answer with a token of 3,000 characters"),
    plain(
        "badtoken",
        Kind::Badtoken,
        "the right answer with a token that has a space, a line end and a quote",
    ),
    plain("noexpiry", Kind::Noexpiry, "the right answer without expires_in"),
    plain("zero", Kind::Zero, "the right answer with expires_in 0"),
    plain("negative", Kind::Negative, "the right answer with expires_in -1"),
    plain("forever", Kind::Forever, "the right answer with expires_in 99999999"),
    plain(
        "fraction",
        Kind::Fraction,
        "the right answer with half a second more in expires_in: 7200.5",
    ),
    plain("string", Kind::String, "the right answer with expires_in as a string; valid"),
    plain("errzero", Kind::Errzero, "the right answer and errcode 0 beside it; valid"),
    plain("both", Kind::Both, "the right answer and errcode 40001 beside it: an error"),
];

const fn plain(name: &'static str, kind: Kind, about: &'static str) -> Entry {
    Entry { name, kind, number: None, about }
}

const fn numbered(
    name: &'static str,
    kind: Kind,
    number: (&'static str, i64),
    about: &'static str,
) -> Entry {
    Entry { name, kind, number: Some(number), about }
}

impl Entry {
    /// As the manual writes it: `errcode:N`.
    pub(crate) fn form(&self) -> String {
        self.number
            .map_or(self.name.to_owned(), |(placeholder, _)| format!("{}:{placeholder}", self.name))
    }

    /// One that can be typed as it is: `errcode:40164`.
    pub(crate) fn example(&self) -> String {
        self.number.map_or(self.name.to_owned(), |(_, example)| format!("{}:{example}", self.name))
    }

    /// What the number may be: a status that is final, a wait that ends within the hour.
    fn takes(&self, number: i64) -> bool {
        match self.kind {
            Kind::Http => (200..=599).contains(&number),
            Kind::Slow => (1..=3600).contains(&number),
            _ => i32::try_from(number).is_ok(),
        }
    }
}

/// A fault, and for how many calls more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// 0 where the kind takes none.
    pub(crate) number: i64,
    /// `None` is: until told otherwise.
    times: Option<u32>,
}

impl Fault {
    /// What is left of it after a call that it struck; `None` when it is used up.
    pub(crate) fn spent(self) -> Option<Fault> {
        match self.times {
            None => Some(self),
            Some(times) => Some(Fault { times: Some(times.checked_sub(1)?), ..self })
                .filter(|f| f.times != Some(0)),
        }
    }

    /// `KIND[:N][@TIMES]`, or `none`.
    pub(crate) fn parse_or_none(text: &str) -> Result<Option<Fault>, String> {
        if text == "none" { Ok(None) } else { text.parse().map(Some) }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let (text, times) = match text.split_once('@') {
            None => (text, None),
            Some((text, times)) => {
                let times = times.parse().ok().filter(|times| *times > 0);
                (
                    text,
                    Some(times.ok_or(
                        "after @, how many calls it is to strike: expected a number from 1",
                    )?),
                )
            }
        };
        let (name, number) = match text.split_once(':') {
            None => (text, None),
            Some((name, number)) => (name, Some(number)),
        };
        let Some(entry) = ENTRIES.iter().find(|entry| entry.name == name) else {
            let forms: Vec<String> = ENTRIES.iter().map(Entry::form).collect();
            return Err(format!("no such fault; there are {}", forms.join(", ")));
        };
        let number = match (entry.number, number) {
            (None, None) => 0,
            (None, Some(_)) => return Err(format!("{name} takes no number")),
            (Some(_), number) => number
                .and_then(|number| number.parse().ok())
                .filter(|number| entry.takes(*number))
                .ok_or_else(|| format!("expected {}, like {}", entry.form(), entry.example()))?,
        };
        Ok(Fault { kind: entry.kind, number, times })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = ENTRIES.iter().find(|entry| entry.kind == self.kind);
        f.write_str(entry.map_or("", |entry| entry.name))?;
        if entry.is_some_and(|entry| entry.number.is_some()) {
            write!(f, ":{}", self.number)?;
        }
        self.times.map_or(Ok(()), |times| write!(f, "@{times}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_table_can_be_typed_and_is_written_as_typed() {
        for entry in ENTRIES {
            let example = entry.example();
            let fault: Fault = example.parse().unwrap_or_else(|err| panic!("{example}: {err}"));
            assert_eq!(fault.kind, entry.kind);
            assert_eq!(fault.to_string(), example);
            let twice = format!("{example}@2");
            assert_eq!(twice.parse::<Fault>().unwrap().to_string(), twice);
        }
    }

    #[test]
    fn every_kind_stands_in_the_table_once() {
        // Both is the last kind: the discriminants before it are all the others.
        let kinds: Vec<usize> = ENTRIES.iter().map(|entry| entry.kind as usize).collect();
        for kind in 0..=Kind::Both as usize {
            assert_eq!(kinds.iter().filter(|k| **k == kind).count(), 1, "kind {kind}");
        }
    }

    #[test]
    fn a_fault_lasts_unless_it_is_told_how_often() {
        let lasting: Fault = "errcode:-1".parse().unwrap();
        assert_eq!((lasting.number, lasting.spent()), (-1, Some(lasting)));
        let twice: Fault = "hang@2".parse().unwrap();
        assert_eq!(twice.spent(), Some("hang@1".parse().unwrap()));
        assert_eq!(twice.spent().and_then(Fault::spent), None);
        assert_eq!(Fault::parse_or_none("none"), Ok(None));
    }

    #[test]
    fn what_is_no_fault_is_refused_with_a_hint() {
        let no = |text: &str| text.parse::<Fault>().unwrap_err();
        for wrong in ["", "none", "Errcode:1", "hangs", "hang ", "errcode :1"] {
            assert!(
                no(wrong).starts_with(
                    "no such fault; there are errcode:N, http:STATUS, slow:SECONDS, hang,"
                ),
                "{wrong}"
            );
        }
        for wrong in ["errcode", "errcode:", "errcode:x", "errcode:99999999999", "errcode:1:2"] {
            assert_eq!(no(wrong), "expected errcode:N, like errcode:40164", "{wrong}");
        }
        for wrong in ["http:199", "http:600", "http:-1"] {
            assert_eq!(no(wrong), "expected http:STATUS, like http:502", "{wrong}");
        }
        for wrong in ["slow:0", "slow:3601", "slow:1s"] {
            assert_eq!(no(wrong), "expected slow:SECONDS, like slow:1", "{wrong}");
        }
        assert_eq!(no("hang:1"), "hang takes no number");
        for wrong in ["hang@", "hang@0", "hang@-1", "hang@often", "hang@1@2"] {
            assert!(no(wrong).starts_with("after @"), "{wrong}");
        }
    }
}
