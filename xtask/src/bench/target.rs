//! What the tools are put on: a JVM, or a program in C.

use std::path::Path;

use super::path;
use crate::demo::JAVA;

/// A program and its command line.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The program.
    program: String,
    arguments: Vec<String>,
    /// Whether it takes agents as a JVM does.
    pub(super) is_jvm: bool,
}

impl Target {
    /// The demo application.
    pub(crate) fn demo(jar: &Path) -> Self {
        let mut arguments: Vec<String> = JAVA[1..].iter().map(|word| (*word).to_owned()).collect();
        arguments.push(path(jar));
        Self { program: JAVA[0].to_owned(), arguments, is_jvm: true }
    }

    /// A program in C.
    pub(crate) fn native(program: &Path, arguments: Vec<String>) -> Self {
        Self { program: path(program), arguments, is_jvm: false }
    }

    /// The command line, with a JVM's option that loads an agent.
    pub(super) fn words(&self, agent: Option<String>) -> Vec<String> {
        let mut words = vec![self.program.clone()];
        words.extend(agent);
        words.extend(self.arguments.iter().cloned());
        words
    }
}
