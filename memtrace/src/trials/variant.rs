//! Settings under which a command is started.
//!
//! In: what `--with` was given, and a command. Out: the command's words and environment under these settings.

/// Where a JVM takes options from that it is not started with (JDK 5 on, prims/arguments.cpp).
const TOOL_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
const PRELOAD: &str = "LD_PRELOAD";

/// A way to start the command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// What it is called: the settings as they were typed, or `plain`.
    pub name: String,
    /// Variables of the environment.
    pub environment: Vec<(String, String)>,
    /// Options of the JVM.
    pub options: Vec<String>,
}

/// Why settings can't be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingError {
    /// There is none.
    #[error("there is no setting in it")]
    Empty,
    /// A quotation mark without its other one.
    #[error("a quotation mark in `{0}` has no other one")]
    Quotes(String),
    /// A word of another kind.
    #[error("`{0}` is neither NAME=VALUE nor an option of the JVM, which begins with `-`")]
    Neither(String),
    /// What is to be preloaded does not exist: the loader would say so and go on without.
    #[error("{PRELOAD}: there is no file {0}")]
    NoLibrary(String),
}

impl Variant {
    /// The command as it is.
    #[must_use]
    pub fn plain() -> Self {
        Self { name: "plain".to_owned(), ..Self::default() }
    }

    /// From one `--with`: settings with blanks between, quoted as in a shell where they have blanks themselves.
    ///
    /// # Errors
    ///
    /// Where a word is no setting, or a library to be preloaded does not exist.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        let words = shlex::split(text).ok_or_else(|| SettingError::Quotes(text.to_owned()))?;
        let mut variant = Self { name: text.trim().to_owned(), ..Self::default() };
        for word in words {
            if word.starts_with('-') && !word.trim_matches('-').is_empty() {
                variant.options.push(word);
                continue;
            }
            match word.split_once('=') {
                Some((name, value)) if is_name(name) => {
                    check_preloaded(name, value)?;
                    variant.environment.push((name.to_owned(), value.to_owned()));
                }
                _ => return Err(SettingError::Neither(word)),
            }
        }
        if variant.environment.is_empty() && variant.options.is_empty() {
            return Err(SettingError::Empty);
        }
        Ok(variant)
    }

    /// The words of `command` under these settings: options of the JVM stand behind `java`.
    #[must_use]
    pub fn words(&self, command: &[String]) -> Vec<String> {
        let options: &[String] = if is_java(command) { &self.options } else { &[] };
        let (program, arguments) = command.split_at(command.len().min(1));
        [program, options, arguments].concat()
    }

    /// What the environment has besides: where the command is no `java` its JVMs get their options from there, in addition
    /// to those that they are given there (`tool_options`).
    #[must_use]
    pub fn variables(
        &self,
        command: &[String],
        tool_options: Option<&str>,
    ) -> Vec<(String, String)> {
        let mut variables = self.environment.clone();
        if self.is_by_environment(command) {
            let own = variables.iter().position(|(name, _)| name == TOOL_OPTIONS);
            let own = own.map(|at| variables.remove(at).1);
            let before = own.or_else(|| tool_options.map(str::to_owned)).unwrap_or_default();
            let options = self.options.iter().map(|option| quoted(option));
            let all: Vec<String> = [before].into_iter().chain(options).collect();
            variables.push((TOOL_OPTIONS.to_owned(), all.join(" ").trim().to_owned()));
        }
        variables
    }

    /// Whether its options reach the JVM by `JAVA_TOOL_OPTIONS`.
    #[must_use]
    pub fn is_by_environment(&self, command: &[String]) -> bool {
        !self.options.is_empty() && !is_java(command)
    }
}

fn is_java(command: &[String]) -> bool {
    command.first().is_some_and(|program| program.rsplit('/').next() == Some("java"))
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(is_part) && name.starts_with(|c: char| !c.is_ascii_digit())
}

/// A name without a folder is searched for by the loader.
fn check_preloaded(name: &str, value: &str) -> Result<(), SettingError> {
    let files = value.split([':', ' ']).filter(|file| name == PRELOAD && file.contains('/'));
    // `$LIB` and `$ORIGIN` are the loader's (ld.so(8)).
    let mut missing =
        files.filter(|file| !file.contains('$') && !std::path::Path::new(file).exists());
    missing.next().map_or(Ok(()), |file| Err(SettingError::NoLibrary(file.to_owned())))
}

/// An option as the JVM reads it from the environment: blanks end one unless it is quoted (runtime/arguments.cpp).
fn quoted(option: &str) -> String {
    let mark = if option.contains('"') { '\'' } else { '"' };
    if option.contains(char::is_whitespace) {
        format!("{mark}{option}{mark}")
    } else {
        option.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    /// What is typed, and how the command is started then: its words, and the environment's.
    #[test]
    fn settings() {
        // (--with, command, words, variables)
        type Variables = &'static [(&'static str, &'static str)];
        let cases: [(&str, &str, &str, Variables); 6] = [
            ("A=1", "java -jar x", "java -jar x", &[("A", "1")]),
            (
                "-Xmx1g A=b=c -XX:+X",
                "/j/bin/java x",
                "/j/bin/java -Xmx1g -XX:+X x",
                &[("A", "b=c")],
            ),
            ("-Xmx1g", "run.sh x", "run.sh x", &[("JAVA_TOOL_OPTIONS", "-Dold -Xmx1g")]),
            ("'-Da=b c'", "x", "x", &[("JAVA_TOOL_OPTIONS", "-Dold \"-Da=b c\"")]),
            ("JAVA_TOOL_OPTIONS=-Dy -Xmx1g", "x", "x", &[("JAVA_TOOL_OPTIONS", "-Dy -Xmx1g")]),
            ("A='b c' B=", "java", "java", &[("A", "b c"), ("B", "")]),
        ];
        for (with, command, expected, variables) in cases {
            let variant = Variant::parse(with).unwrap();
            assert_eq!(variant.words(&words(command)), words(expected), "{with}");
            let told = variant.variables(&words(command), Some("-Dold"));
            let told: Vec<(&str, &str)> = told.iter().map(|(n, v)| (&**n, &**v)).collect();
            assert_eq!(told, variables, "{with}");
        }
        assert_eq!(Variant::plain().words(&words("java x")), words("java x"));
        assert!(Variant::plain().variables(&words("x"), Some("-Dold")).is_empty());
    }

    /// What is no setting is told before anything is started.
    #[test]
    fn no_settings() {
        let cases = [
            ("", SettingError::Empty),
            ("jemalloc", SettingError::Neither("jemalloc".into())),
            ("1A=b", SettingError::Neither("1A=b".into())),
            ("--", SettingError::Neither("--".into())),
            ("=b", SettingError::Neither("=b".into())),
            ("A='b", SettingError::Quotes("A='b".into())),
            ("LD_PRELOAD=libc.so.6:/no/such.so", SettingError::NoLibrary("/no/such.so".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(Variant::parse(text).unwrap_err(), expected, "{text}");
        }
    }
}
