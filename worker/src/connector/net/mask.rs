//! What a server or a library says may repeat what it was told. Secrets are taken out before anybody sees it.

/// Shorter values would be found in words that have nothing to do with them.
const SECRET_MIN: usize = 4;

/// Characters of a server's words that are passed on.
const SHOWN_MAX: usize = 300;

/// Neither Debug nor Display: it holds them.
#[derive(Clone, Default)]
pub struct Masks(Vec<String>);

impl Masks {
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Masks {
        Masks(secrets.into_iter().filter(|secret| secret.len() >= SECRET_MIN).collect())
    }

    /// One line of bounded length without secrets.
    pub fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret) {
                text = text.replace(secret, "***");
            }
        }
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let short: String = text.trim().chars().take(SHOWN_MAX).map(plain).collect();
        if short.len() < text.trim().len() { short + "…" } else { short }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_long_words_cut() {
        let masks = Masks::new(["Bearer hunter2".into(), "hunter2".into(), "a".into()]);
        assert_eq!(masks.hide("you sent 'Bearer hunter2'\nand \"hunter2\" "), "you sent '***' and \"***\"");
        assert_eq!(masks.hide(&"x".repeat(1_000)).chars().count(), SHOWN_MAX + 1);
    }
}
