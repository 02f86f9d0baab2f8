//! What the methods of classes call, as javap reads their class files: the oracle for who may be whose caller.
//!
//! A class path and names of classes go in; for each method, the names that it invokes come out. Methods of one name are
//! taken together, and whose method is invoked is left open: it may be a subclass's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::fixtures::run;

/// Names on one command line: with more, it would be too long.
const BATCH: usize = 400;

/// What one method calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// Names of methods, `<init>` for constructors.
    pub names: BTreeSet<String>,
    /// Whether it has a call site that is linked when it is first run: a lambda, a concatenation, a method handle.
    pub is_dynamic: bool,
}

/// What the methods of classes call: by class, then by method.
#[derive(Clone, Debug, Default)]
pub struct Calls(BTreeMap<String, BTreeMap<String, Called>>);

impl Calls {
    /// Reads `classes` of the JDK and of `path`; those that are in neither are left out.
    pub fn read<'a>(path: &[PathBuf], classes: impl Iterator<Item = &'a str>) -> Self {
        let path: Vec<_> = path.iter().map(|path| path.display().to_string()).collect();
        let reversed: Vec<_> = path.iter().rev().cloned().collect();
        let classes: Vec<&str> = classes.collect();
        let mut calls = Self::default();
        // Of a class that stands in two jars, either may be the one that runs.
        for path in [path.join(":"), reversed.join(":")] {
            for batch in classes.chunks(BATCH) {
                // It fails if one class is unknown, and prints the others.
                let mut javap = Command::new("javap");
                javap.args(["-J-Xmx1g", "-c", "-p", "-cp", &path]).args(batch);
                let said = javap.output().expect("javap is in every JDK");
                calls.parse(&String::from_utf8_lossy(&said.stdout));
            }
        }
        calls
    }

    /// Whether the class was found.
    pub fn knows(&self, class: &str) -> bool {
        self.0.contains_key(class)
    }

    /// What the methods called `method` of `class` call.
    pub fn of(&self, class: &str, method: &str) -> Option<&Called> {
        self.0.get(class)?.get(method)
    }

    fn parse(&mut self, text: &str) {
        let (mut class, mut method) = (String::new(), String::new());
        for line in text.lines() {
            if !line.starts_with(' ') {
                if let Some(name) = declared_class(line) {
                    class = name;
                    self.0.entry(class.clone()).or_default();
                }
            } else if !line.starts_with("   ") {
                if let Some(name) = declared_method(line.trim(), &class) {
                    method = name;
                    let methods = self.0.entry(class.clone()).or_default();
                    methods.entry(method.clone()).or_default();
                }
            } else if let Some(called) =
                self.0.get_mut(&class).and_then(|methods| methods.get_mut(&method))
            {
                called.add(line);
            }
        }
    }
}

impl Called {
    /// An instruction: `5: invokevirtual #7 // Method java/io/File.exists:()Z`.
    fn add(&mut self, line: &str) {
        let Some((code, comment)) = line.split_once("// ") else { return };
        if code.contains(": invokedynamic") {
            self.is_dynamic = true;
        } else if code.contains(": invoke") {
            let target = comment.split_once(' ').map_or(comment, |(_, target)| target);
            let name = target.split_once(':').map_or(target, |(name, _)| name);
            self.is_dynamic |= ["VarHandle.", "MethodHandle."].iter().any(|class| {
                name.strip_prefix("java/lang/invoke/").is_some_and(|name| name.starts_with(class))
            });
            let name = name.rsplit(['.', '/']).next().unwrap_or(name);
            self.names.insert(name.trim_matches('"').to_owned());
        }
    }
}

/// `public final class a.B<T> extends C {`.
fn declared_class(line: &str) -> Option<String> {
    let mut words = line.strip_suffix('{')?.split(' ');
    words.find(|word| ["class", "interface", "@interface"].contains(word))?;
    let name = words.next()?;
    Some(name.split('<').next().unwrap_or(name).to_owned())
}

/// `public static <T> void of(java.lang.String) throws java.io.IOException;`
fn declared_method(line: &str, class: &str) -> Option<String> {
    if line == "static {};" {
        return Some("<clinit>".to_owned());
    }
    let (before, _) = line.strip_suffix(';')?.split_once('(')?;
    let name = before.rsplit(' ').next()?;
    Some(if name == class { "<init>".to_owned() } else { name.to_owned() })
}

/// The class path of a Spring Boot jar, whose jars are unpacked to `folder`.
pub fn class_path(jar: &Path, folder: &Path) -> Vec<PathBuf> {
    run(Command::new("jar").current_dir(folder).arg("xf").arg(jar));
    let libraries = fs::read_dir(folder.join("BOOT-INF/lib")).expect("it is a Spring Boot jar");
    let libraries = libraries.map(|entry| entry.expect("the folder is readable").path());
    [folder.to_owned(), folder.join("BOOT-INF/classes")].into_iter().chain(libraries).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Classes and methods of every kind, as javap prints them.
    #[test]
    fn javap() {
        let text = r#"Compiled from "B.java"
public final class a.B<T extends java.lang.Object> extends a.C implements java.lang.Runnable {
  private final int n;

  public a.B(int);
    Code:
       0: aload_0
       1: invokespecial #1                  // Method java/lang/Object."<init>":()V

  public <U> java.util.List<U> of(U, java.lang.String...) throws java.io.IOException;
    Code:
       0: invokestatic  #2                  // Method own:()V
       3: invokeinterface #3,  1            // InterfaceMethod java/util/List.size:()I
       8: invokedynamic #4,  0              // InvokeDynamic #0:run:()Ljava/lang/Runnable;
      11: getfield      #9                  // Field n:I
      12: invokevirtual #5                  // Method "[La/B;".clone:()Ljava/lang/Object;

  static {};
    Code:
       0: invokestatic  #7                  // Method first:()V
}
interface a.B$Inner {
  public abstract void none();
}
"#;
        let mut calls = Calls::default();
        calls.parse(text);
        let names = |class, method| -> Vec<&str> {
            calls.of(class, method).unwrap().names.iter().map(String::as_str).collect()
        };
        assert_eq!(names("a.B", "<init>"), ["<init>"]);
        assert_eq!(names("a.B", "of"), ["clone", "own", "size"]);
        assert_eq!(names("a.B", "<clinit>"), ["first"]);
        assert!(calls.of("a.B", "of").unwrap().is_dynamic);
        assert!(!calls.of("a.B", "<init>").unwrap().is_dynamic);
        assert!(calls.knows("a.B$Inner") && !calls.knows("a.D"));
        assert_eq!(calls.of("a.B", "n"), None);
    }

    /// The JDK's own classes are found without a class path.
    #[test]
    fn of_the_jdk() {
        let calls = Calls::read(&[], ["java.util.zip.Inflater", "no.such.Class"].into_iter());
        assert!(calls.of("java.util.zip.Inflater", "<init>").unwrap().names.contains("init"));
        assert!(!calls.knows("no.such.Class"));
    }
}
