//! The written form of a choice list: readable, stable, run-length coded.
//!
//! A list is a sequence of words between white space. A word is the kind's letter ([`ChoiceKind::letter`]) and the value in
//! decimal, with `*` and a count when the same choice comes several times in a row:
//!
//! ```text
//! s0*12 s3 s0*2 a1 p3 w2
//! ```
//!
//! [`write()`] makes lines of at most [`LINE_CHARS`] characters and always the longest possible runs, so that equal lists have
//! equal texts; [`parse`] takes any white space and any split into runs. Text comes from outside and is hostile: its size is
//! checked before anything is allocated for it, and errors name line and column, both from 1, columns in characters.

use crate::engine::{ChoiceKind, RECORD_LIMIT, Recorded};

/// Longest line that [`write()`] makes, in characters.
pub const LINE_CHARS: usize = 100;

/// Why a text is not a choice list, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("choice list, line {line}, column {column}: {fault}")]
pub struct ChoicesError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub fault: ChoicesFault,
}

/// What can be wrong in a choice list.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChoicesFault {
    /// No kind has this letter.
    #[error("`{found}` is no kind of choice; kinds are s a c p h w j")]
    Kind {
        /// The character found.
        found: char,
    },
    /// A number is missing.
    #[error("a number is missing")]
    Number,
    /// The value does not fit a recorded choice.
    #[error("a value above {max}", max = Recorded::VALUE_MAX)]
    Value,
    /// A run of no choices.
    #[error("a count of 0")]
    NoCount,
    /// The list would be longer than a run can be.
    #[error("more than {RECORD_LIMIT} choices")]
    TooMany,
    /// The word goes on with something else.
    #[error("`{found}` where the word should end")]
    Rest {
        /// The character found.
        found: char,
    },
}

/// Writes `list`. No line break at the end.
pub fn write(list: &[Recorded]) -> String {
    let mut text = String::new();
    let mut line_chars = 0;
    for run in list.chunk_by(|a, b| a == b) {
        let mut word = format!("{}{}", run[0].kind().letter(), run[0].value());
        if run.len() > 1 {
            word.push_str(&format!("*{}", run.len()));
        }
        if line_chars > 0 {
            let fits = line_chars + 1 + word.len() <= LINE_CHARS;
            text.push(if fits { ' ' } else { '\n' });
            line_chars = if fits { line_chars + 1 } else { 0 };
        }
        line_chars += word.len();
        text.push_str(&word);
    }
    text
}

/// Reads a list back.
///
/// # Errors
/// When the text is not a list or has more than [`RECORD_LIMIT`] choices. Nothing is allocated for a run that is refused, so a text
/// can never make this hold more than twice the largest list.
pub fn parse(text: &str) -> Result<Vec<Recorded>, ChoicesError> {
    let mut list = Vec::new();
    for (line_index, line) in text.lines().enumerate() {
        let mut cursor = Cursor { rest: line, column: 1 };
        let at = |column, fault| ChoicesError { line: line_index + 1, column, fault };
        while cursor.skip_white() {
            let column = cursor.column;
            let (choice, count) = cursor.word().map_err(|(column, fault)| at(column, fault))?;
            if count > RECORD_LIMIT - list.len() {
                return Err(at(column, ChoicesFault::TooMany));
            }
            list.extend(std::iter::repeat_n(choice, count));
        }
    }
    Ok(list)
}

/// A place in one line.
struct Cursor<'a> {
    rest: &'a str,
    column: usize,
}

impl Cursor<'_> {
    /// Goes to the next word; false at the end of the line.
    fn skip_white(&mut self) -> bool {
        while self.peek().is_some_and(char::is_whitespace) {
            self.bump();
        }
        !self.rest.is_empty()
    }

    fn word(&mut self) -> Result<(Recorded, usize), (usize, ChoicesFault)> {
        let start = self.column;
        let found = self.bump().expect("a word begins here");
        let kind = ChoiceKind::from_letter(found).ok_or((start, ChoicesFault::Kind { found }))?;
        let value = self.number(u64::from(Recorded::VALUE_MAX), ChoicesFault::Value)?;
        let mut count = 1;
        if self.peek() == Some('*') {
            self.bump();
            let start = self.column;
            count = self.number(RECORD_LIMIT as u64, ChoicesFault::TooMany)?;
            if count == 0 {
                return Err((start, ChoicesFault::NoCount));
            }
        }
        match self.peek().filter(|found| !found.is_whitespace()) {
            Some(found) => Err((self.column, ChoicesFault::Rest { found })),
            None => Ok((Recorded::new(kind, value as u32), count as usize)),
        }
    }

    /// Decimal digits up to `max`; stops reading as soon as the number is above.
    fn number(&mut self, max: u64, above: ChoicesFault) -> Result<u64, (usize, ChoicesFault)> {
        let start = self.column;
        let mut number = 0;
        while let Some(digit) = self.peek().and_then(|found| found.to_digit(10)) {
            number = number * 10 + u64::from(digit);
            if number > max {
                return Err((start, above));
            }
            self.bump();
        }
        if self.column == start { Err((start, ChoicesFault::Number)) } else { Ok(number) }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let found = chars.next();
        self.rest = chars.as_str();
        self.column += usize::from(found.is_some());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(runs: &[(ChoiceKind, u32, usize)]) -> Vec<Recorded> {
        runs.iter().flat_map(|&(kind, value, count)| std::iter::repeat_n(Recorded::new(kind, value), count)).collect()
    }
    fn error(text: &str) -> String {
        parse(text).expect_err("not a list").to_string()
    }

    #[test]
    fn a_list_is_written_as_runs() {
        use ChoiceKind::*;
        let list =
            listed(&[(Schedule, 0, 12), (Schedule, 3, 1), (Schedule, 0, 2), (AllocFails, 1, 1), (Placement, 3, 1), (Workload, 2, 1)]);
        assert_eq!(write(&list), "s0*12 s3 s0*2 a1 p3 w2");
        assert_eq!(parse("s0*12 s3 s0*2 a1 p3 w2"), Ok(list));
        assert_eq!((write(&[]), parse(" \n\t ")), (String::new(), Ok(vec![])));
    }

    #[test]
    fn long_lists_are_broken_into_lines() {
        let list: Vec<_> = (0..500).map(|value| Recorded::new(ChoiceKind::Hardware, value)).collect();
        let text = write(&list);
        assert!(text.lines().count() > 20 && text.lines().all(|line| (90..=LINE_CHARS).contains(&line.len()) || line.ends_with("h499")));
        assert_eq!(parse(&text), Ok(list));
    }

    #[test]
    fn errors_name_the_place_and_the_fault() {
        assert_eq!(error("s0 x1"), "choice list, line 1, column 4: `x` is no kind of choice; kinds are s a c p h w j");
        assert_eq!(error("s0\n  s"), "choice list, line 2, column 4: a number is missing");
        assert_eq!(error("s4096"), "choice list, line 1, column 2: a value above 4095");
        assert_eq!(error("s1*"), "choice list, line 1, column 4: a number is missing");
        assert_eq!(error("s1*0"), "choice list, line 1, column 4: a count of 0");
        assert_eq!(error("s1*2,s3"), "choice list, line 1, column 5: `,` where the word should end");
        assert_eq!(error("s-1"), "choice list, line 1, column 2: a number is missing");
        assert_eq!(error("\u{e9}"), "choice list, line 1, column 1: `\u{e9}` is no kind of choice; kinds are s a c p h w j");
    }

    #[test]
    fn a_huge_count_is_refused_before_anything_is_allocated_for_it() {
        assert_eq!(error("s1*16777217"), "choice list, line 1, column 4: more than 16777216 choices");
        assert_eq!(error(&format!("s1*{}", "9".repeat(100_000))), "choice list, line 1, column 4: more than 16777216 choices");
        assert_eq!(error("s1 s2*16777216"), "choice list, line 1, column 4: more than 16777216 choices");
        assert_eq!(parse("s1*16777216").map(|list| list.len()), Ok(RECORD_LIMIT));
    }

    #[test]
    fn the_letters_listed_in_the_error_are_all_there_are() {
        let letters: Vec<String> = ChoiceKind::ALL.iter().map(|kind| kind.letter().to_string()).collect();
        assert!(error("?").ends_with(&letters.join(" ")));
    }

    fn any_list() -> impl Strategy<Value = Vec<Recorded>> {
        prop::collection::vec((0..ChoiceKind::ALL.len(), 0..=Recorded::VALUE_MAX, 1..20usize), 0..60).prop_map(|runs| {
            runs.into_iter().flat_map(|(kind, value, count)| vec![Recorded::new(ChoiceKind::ALL[kind], value); count]).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(list in any_list()) {
            let text = write(&list);
            prop_assert_eq!(parse(&text), Ok(list));
            prop_assert!(text.lines().all(|line| line.len() <= LINE_CHARS));
        }

        #[test]
        fn equal_lists_have_equal_texts_whatever_the_runs(list in any_list()) {
            let spread: Vec<String> = list.iter().map(|choice| format!("{}{}*1", choice.kind().letter(), choice.value())).collect();
            prop_assert_eq!(parse(&spread.join("\n\n")).map(|list| write(&list)), Ok(write(&list)));
        }

        #[test]
        fn garbage_never_panics(text in "\\PC*", near in "[sacphwj0-9* \n]{0,200}") {
            let _ = parse(&text);
            if let Ok(list) = parse(&near) {
                prop_assert!(list.len() <= RECORD_LIMIT);
            }
        }

        #[test]
        fn a_truncated_or_flipped_text_is_an_error_or_a_valid_list(list in any_list(), cut in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = write(&list).into_bytes();
            if bytes.is_empty() {
                return Ok(());
            }
            let place = cut.index(bytes.len());
            if let Ok(list) = parse(std::str::from_utf8(&bytes[..place]).expect("ASCII")) {
                prop_assert_eq!(parse(&write(&list)), Ok(list));
            }
            bytes[place] ^= 1 << bit;
            if let Ok(list) = parse(&String::from_utf8_lossy(&bytes)) {
                prop_assert_eq!(parse(&write(&list)), Ok(list));
            }
        }
    }
}
