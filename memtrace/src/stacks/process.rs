//! One process: its code, native and Java, and what was found at its addresses.

use memtrace_common::{EventHeader, Regs};

use super::{
    intern::{Frame, FrameId, FrameKind},
    java::{Java, Stepped},
    kept::Kept,
    modules::{Code, Modules},
    steps::{self, Generation, Steps},
    tree::{Node, Tree},
    walk::{Address, CodeAt, Place},
};
use crate::jvm::NoStep;

/// What is known of a process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) modules: Modules,
    /// Of `modules`; none yet where nothing was looked up since they changed.
    pub(super) generation: Option<Generation>,
    pub(super) java: Java,
    pub(super) tree: Tree,
    /// The frames of an address, by its number in the tree, and whether one of them is a guess.
    pub(super) names: Vec<Option<(Box<[FrameId]>, bool)>>,
    /// When the map was read, on the events' clock.
    pub(super) refreshed_ns: Option<u64>,
}

/// The code of a process, as the walk asks for it.
pub(super) struct ProcessCode<'a> {
    pub(super) modules: &'a Modules,
    pub(super) generation: Generation,
    pub(super) steps: &'a mut Steps,
    pub(super) java: &'a mut Java,
    pub(super) header: &'a EventHeader,
}

impl CodeAt for ProcessCode<'_> {
    fn native(&mut self, pc: u64) -> steps::Step {
        self.steps.at(self.modules, self.generation, pc)
    }

    fn java(
        &mut self,
        regs: &Regs,
        word: impl Fn(u64) -> Option<u64>,
    ) -> Option<Result<Stepped, NoStep>> {
        // An event is one of native code; a thread that is stopped may have been in Java code.
        let is_interrupted = *regs == self.header.regs;
        self.java.step(regs, is_interrupted, self.header.exit_ns, word)
    }
}

impl Process {
    /// What was found at an address does not hold when other code lies there.
    pub(super) fn forget_if(&mut self, is_changed: bool) {
        if is_changed {
            self.generation = None;
            self.tree = Tree::default();
            self.names.clear();
        }
    }

    /// Where native code lies that the stack from `node` on leads through.
    pub(super) fn native(&self, node: Node) -> impl Iterator<Item = u64> {
        self.tree.frames(node).filter_map(|(_, address)| match address.place {
            Place::Native(pc) => Some(pc),
            Place::Java(_) => None,
        })
    }

    /// The frames from `node` on, and whether one of them is a guess.
    pub(super) fn named(&mut self, node: Node, kept: &mut Kept) -> (Vec<FrameId>, bool) {
        let Self { tree, names, java, modules, .. } = self;
        let (mut frames, mut guess) = (Vec::new(), false);
        for (number, address) in tree.frames(node) {
            if names.len() <= number {
                names.resize_with(number + 1, || None);
            }
            let (ids, is_guess) = names[number].get_or_insert_with(|| {
                let frames = frames_at(address, java, modules);
                let is_guess = address.guess || frames.iter().any(|frame| frame.guess);
                (frames.into_iter().map(|frame| kept.frame(frame)).collect(), is_guess)
            });
            frames.extend_from_slice(ids);
            guess |= *is_guess;
        }
        (frames, guess)
    }
}

/// The frames that stand for `address`: more than one where methods were compiled into their caller.
fn frames_at(address: Address, java: &mut Java, modules: &Modules) -> Vec<Frame> {
    match address.place {
        Place::Java(key) => java.frames(key, address.guess),
        Place::Native(pc) => match modules.at(pc) {
            Code::Module(module, in_file) => vec![Frame {
                name: module.function(in_file),
                kind: FrameKind::Native,
                guess: address.guess,
                source: Some((module.name.clone(), None)),
            }],
            _ => Vec::new(),
        },
    }
}
