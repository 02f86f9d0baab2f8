//! What is noted of resolving while a capture is made: the steps as they are taken, and where stacks lead.

use std::io;

use super::{
    super::{Stacks, tree::Node},
    Captured, Recorder, Step,
};

impl Stacks {
    /// From now on writes down what resolving depends on, so that it can be done again: see [`Capture`].
    pub fn capture(&mut self, out: Box<dyn io::Write>) {
        let (recorder, origin) = Recorder::new(out, self.files.origin.clone());
        self.files.origin = origin;
        self.recorder = Some(recorder);
    }

    /// Ends what [`Stacks::capture`] began, if it did.
    ///
    /// # Errors
    ///
    /// What went wrong with writing, at any time.
    pub fn end_capture(&mut self) -> io::Result<Option<Captured>> {
        self.recorder.take().map(Recorder::finish).transpose()
    }

    /// Takes note of a step that was taken, if that is wanted.
    pub(in super::super) fn note(&mut self, step: impl FnOnce() -> Step) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(step());
        }
    }

    /// Takes note of where a stack leads in files, if that is wanted.
    pub(in super::super) fn note_native(&mut self, tgid: u32, node: Node) {
        let Self { recorder, processes, .. } = self;
        if let (Some(recorder), Some(process)) = (recorder, processes.get(&tgid)) {
            process.native(node).for_each(|pc| recorder.visit(tgid, &process.modules, pc));
        }
    }

    /// The code of a process is other code now, if `is_changed`.
    pub(in super::super) fn code_changed(&mut self, is_changed: bool) {
        if let Some(recorder) = self.recorder.as_mut().filter(|_| is_changed) {
            recorder.forget_code();
        }
    }
}
