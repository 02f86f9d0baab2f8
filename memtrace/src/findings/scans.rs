//! Libraries that search the class path, by their methods.

use crate::stacks::FrameId;

use super::evidence::Evidence;

/// A library that opens every class it is pointed at.
#[derive(Debug)]
pub(super) struct Scan {
    /// What its methods' names begin with.
    methods: &'static [&'static str],
    /// What people call it.
    pub(super) name: &'static str,
    /// How it is told to open fewer.
    pub(super) restrict: &'static str,
}

const SCANS: [Scan; 7] = [
    Scan {
        methods: &["org.reflections.Reflections.", "org.reflections.scanners."],
        name: "Reflections",
        restrict: "new ConfigurationBuilder().forPackages(\"your.package\").filterInputsBy(new FilterBuilder().includePackage(\"your.package\"))",
    },
    Scan {
        methods: &["io.github.classgraph."],
        name: "ClassGraph",
        restrict: "new ClassGraph().acceptPackages(\"your.package\")",
    },
    Scan {
        methods: &[
            "org.springframework.context.annotation.ClassPathScanningCandidateComponentProvider.",
        ],
        name: "Spring's component scan",
        restrict: "@ComponentScan(basePackages = \"your.package\"), or spring-context-indexer",
    },
    Scan {
        methods: &[
            "org.apache.catalina.startup.ContextConfig.processAnnotations",
            "org.apache.tomcat.util.scan.StandardJarScanner.",
        ],
        name: "Tomcat's scan for annotations",
        restrict: "-Dtomcat.util.scan.StandardJarScanFilter.jarsToSkip=*.jar, or metadata-complete=\"true\" in web.xml",
    },
    Scan {
        methods: &["org.eclipse.jetty.annotations.", "org.eclipse.jetty.ee"],
        name: "Jetty's scan for annotations",
        restrict: "the attribute org.eclipse.jetty.server.webapp.ContainerIncludeJarPattern, or metadata-complete=\"true\"",
    },
    Scan {
        methods: &["org.jboss.jandex."],
        name: "Jandex",
        restrict: "an index made at build time (META-INF/jandex.idx)",
    },
    Scan {
        methods: &["org.hibernate.boot.archive.scan."],
        name: "Hibernate's scan for entities",
        restrict: "<exclude-unlisted-classes/> in persistence.xml",
    },
];

/// The library that a call belongs to, if it is one.
pub(super) fn scan_in(evidence: &Evidence<'_>, call: &[FrameId]) -> Option<&'static Scan> {
    let frames = &evidence.recording.frames;
    let names = || call.iter().filter_map(|id| Some(frames.get(id.0 as usize)?.name.as_str()));
    SCANS
        .iter()
        .find(|scan| names().any(|name| scan.methods.iter().any(|method| name.starts_with(method))))
}
