//! What people write as a language, and what the upstream takes.

mod table;

use super::asked::Language;
use table::{ALIASES, LANGUAGES};

/// The value is no language that has a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a language code of ISO 639-1")]
pub struct NotALanguage;

impl Language {
    /// Reads a code (`en`, `eng`), a tag (`en-US`, `zh-Hant`, `zh_CN`) or an English name (`english`), in any case.
    ///
    /// `Ok(None)` stands for "find out yourself": empty or `auto`, which the upstream answers with an error when
    /// it is sent (`contract: codex-upstream.md` section 1). What comes out is never longer than what went in.
    pub fn parse(written: &str) -> Result<Option<Self>, NotALanguage> {
        let written = written.to_ascii_lowercase().replace('_', "-");
        if written.is_empty() || written == "auto" {
            return Ok(None);
        }
        if let "zh-cn" | "zh-tw" | "zh-hk" = written.as_str() {
            return Ok(Some(Self(written)));
        }
        if let Some(code) = code_of(&written) {
            return Ok(Some(Self(code.to_owned())));
        }
        let (primary, subtags) = written.split_once('-').ok_or(NotALanguage)?;
        if !subtags.split('-').all(is_subtag) || primary.len() > 3 {
            return Err(NotALanguage);
        }
        code_of(primary).map(|code| Some(Self(code.to_owned()))).ok_or(NotALanguage)
    }

    /// The code that goes upstream.
    pub fn code(&self) -> &str {
        &self.0
    }

    /// The English name in lower case, as `verbose_json` says it (`english`).
    pub fn english_name(&self) -> Option<&'static str> {
        let primary = self.0.split('-').next()?;
        LANGUAGES.iter().find(|(code, _, _)| *code == primary).map(|(_, _, name)| *name)
    }
}

/// The code for a code or a name, in lower case.
fn code_of(word: &str) -> Option<&'static str> {
    let listed = LANGUAGES.iter().find(|(code, long, name)| word == *code || word == *long || word == *name);
    listed
        .map(|(code, _, _)| *code)
        .or_else(|| ALIASES.iter().find(|(alias, _)| word == *alias).map(|(_, code)| *code))
}

/// RFC 5646 2.1: one to eight letters or digits.
fn is_subtag(text: &str) -> bool {
    (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(written: &str) -> Result<Option<String>, NotALanguage> {
        Language::parse(written).map(|found| found.map(|language| language.code().to_owned()))
    }

    #[test]
    fn codes_tags_and_names_become_the_code() {
        for (written, expected) in [
            ("en", "en"),
            ("EN", "en"),
            ("en-US", "en"),
            ("en_us", "en"),
            ("eng", "en"),
            ("English", "en"),
            ("ger", "de"),
            ("deu-AT", "de"),
            ("zh-Hans", "zh"),
            ("zh-Hant", "zh"),
            ("zh-Hant-TW", "zh"),
            ("zh-SG", "zh"),
            ("cmn", "zh"),
            ("Mandarin", "zh"),
            ("haitian creole", "ht"),
            ("yue", "yue"),
            ("iw", "he"),
            ("sr-Latn-RS", "sr"),
            ("es-419", "es"),
        ] {
            assert_eq!(code(written), Ok(Some(expected.to_owned())), "{written}");
        }
    }

    #[test]
    fn the_three_chinese_regions_that_openai_documents_are_kept() {
        for (written, expected) in [("zh-cn", "zh-cn"), ("zh_TW", "zh-tw"), ("ZH-HK", "zh-hk")] {
            assert_eq!(code(written), Ok(Some(expected.to_owned())));
        }
    }

    #[test]
    fn auto_and_empty_mean_no_language() {
        for written in ["", "auto", "AUTO"] {
            assert_eq!(code(written), Ok(None));
        }
    }

    #[test]
    fn garbage_is_refused() {
        for written in
            ["xx", "xx!", "e", "en-", "en--us", "-en", "en us", " en", "en\r\n", "klingon", "english-us", "é"]
        {
            assert_eq!(code(written), Err(NotALanguage), "{written:?}");
        }
    }

    #[test]
    fn names_are_the_ones_that_whisper_answers_with() {
        for (written, name) in
            [("en-GB", "english"), ("zh-tw", "chinese"), ("ht", "haitian creole"), ("yue", "cantonese")]
        {
            let language = Language::parse(written).unwrap().unwrap();
            assert_eq!(language.english_name(), Some(name));
        }
    }

    #[test]
    fn no_code_is_longer_than_any_way_to_write_it() {
        for (code, long, name) in LANGUAGES {
            assert!(code.len() <= long.len() && code.len() <= name.len(), "{code}");
        }
        for (alias, code) in ALIASES {
            assert!(code.len() <= alias.len() && code_of(alias) == Some(code), "{alias}");
        }
    }
}
