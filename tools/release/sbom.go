package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// sbomType is the media type of a bill of materials as JSON
// (https://www.iana.org/assignments/media-types/application/vnd.cyclonedx+json).
const sbomType = "application/vnd.cyclonedx+json"

// sbom is the CycloneDX bill of materials of binaries that are handed out
// together: what the linker recorded in them, which is what is in them.
func sbom(name string, src source, binaries []binary) ([]byte, error) {
	bom := cdx.NewBOM()
	modules := map[string]cdx.Component{}
	var parts []cdx.Component
	var dependencies []cdx.Dependency
	identity := sha256.New()
	for _, b := range binaries {
		refs := map[string]bool{}
		for _, component := range linked(b.info) {
			modules[component.BOMRef] = component
			refs[component.BOMRef] = true
		}
		ref := fmt.Sprintf("%s@%s?platform=%v", b.program, src.version, b.platform)
		fmt.Fprintf(identity, "%s %s\n", ref, b.sha256())
		parts = append(parts, cdx.Component{
			BOMRef: ref, Type: cdx.ComponentTypeApplication, Name: b.program, Version: src.version,
			PackageURL: purl(modulePath, src.version) + "#cmd/" + b.program,
			Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: b.sha256()}},
			Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
			Properties: properties(b),
		})
		dependencies = append(dependencies, dependsOn(ref, slices.Sorted(maps.Keys(refs))))
	}
	subject := parts[0]
	if len(parts) > 1 {
		subject = cdx.Component{
			BOMRef: name, Type: cdx.ComponentTypeApplication, Name: name, Version: src.version,
			PackageURL: purl(modulePath, src.version), Components: &parts,
		}
		var refs []string
		for _, part := range parts {
			refs = append(refs, part.BOMRef)
		}
		dependencies = append(dependencies, dependsOn(name, refs))
	}
	bom.SerialNumber = serial(identity.Sum(nil))
	bom.Metadata = &cdx.Metadata{Timestamp: src.time.Format(time.RFC3339), Component: &subject}
	components := make([]cdx.Component, 0, len(modules))
	for _, ref := range slices.Sorted(maps.Keys(modules)) {
		components = append(components, modules[ref])
	}
	bom.Components, bom.Dependencies = &components, &dependencies
	var text bytes.Buffer
	if err := cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("bill of materials of %s: %w", name, err)
	}
	return text.Bytes(), nil
}

// linked are the modules of a binary, and Go's own library.
func linked(info *buildinfo.BuildInfo) []cdx.Component {
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	found := []cdx.Component{{
		BOMRef: purl("std", goVersion), Type: cdx.ComponentTypeLibrary, Name: "std", Version: goVersion, PackageURL: purl("std", goVersion),
	}}
	for _, dep := range info.Deps {
		sum := dep.Sum
		if dep.Replace != nil {
			dep, sum = dep.Replace, dep.Replace.Sum
		}
		ref := purl(dep.Path, dep.Version)
		found = append(found, cdx.Component{
			BOMRef: ref, Type: cdx.ComponentTypeLibrary, Name: dep.Path, Version: dep.Version, PackageURL: ref,
			// A hash over a module's tree, not over a file: CycloneDX has no field for it.
			Properties: &[]cdx.Property{{Name: "go:sum", Value: sum}},
		})
	}
	return found
}

// properties say how a binary was built.
func properties(b binary) *[]cdx.Property {
	found := []cdx.Property{{Name: "go:version", Value: b.info.GoVersion}}
	for _, s := range b.info.Settings {
		found = append(found, cdx.Property{Name: "go:build:" + s.Key, Value: s.Value})
	}
	return &found
}

func dependsOn(ref string, on []string) cdx.Dependency {
	return cdx.Dependency{Ref: ref, Dependencies: &on}
}

// purl is a package URL (https://github.com/package-url/purl-spec, type golang).
func purl(module, version string) string {
	return "pkg:golang/" + strings.ToLower(module) + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// serial is a UUID of version 8 (RFC 9562) that the content decides, so that the
// same binaries have the same one.
func serial(sum []byte) string {
	id := slices.Clone(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
