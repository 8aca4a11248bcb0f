//go:build ignore

// Writes the golden files of test_index.py with Go's own encoder: run `go run golden.go` in this folder.
//
// The structs are those of github.com/opencontainers/image-spec/specs-go/v1 (index.go, descriptor.go), with the
// fields that an index of ours may have; json.MarshalIndent(index, "", "  ") is what
// `docker buildx imagetools create` calls (util/imagetools/create.go). Nothing here comes from proxy/.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

type Index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []Descriptor `json:"manifests"`
}

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
)

var (
	amd64   = &Platform{Architecture: "amd64", OS: "linux"}
	arm64   = &Platform{Architecture: "arm64", OS: "linux", Variant: "v8"}
	unknown = &Platform{Architecture: "unknown", OS: "unknown"}
)

func sha(hex string) string { return "sha256:" + strings.Repeat(hex, 64) }

func child(mediaType, hex string, size int64, platform *Platform) Descriptor {
	return Descriptor{MediaType: mediaType, Digest: sha(hex), Size: size, Platform: platform}
}

func attestation(hex string, size int64, subject string) Descriptor {
	entry := child(ociManifest, hex, size, unknown)
	entry.Annotations = map[string]string{
		"vnd.docker.reference.type":   "attestation-manifest",
		"vnd.docker.reference.digest": sha(subject),
	}
	return entry
}

func windows(version string) *Platform {
	return &Platform{Architecture: "amd64", OS: "windows", OSVersion: version, OSFeatures: []string{"win32k"}}
}

func main() {
	annotated := child(ociManifest, "b", 1025, arm64)
	annotated.Annotations = map[string]string{
		"org.example.z":     "last, though added first",
		"org.example.a":     "<a href=\"x\">Tom & Jerry</a>\u2028\u2029\n\t\\ \u00fc \U0001F433 \x7f",
		"org.example.<key>": "",
	}
	annotated.ArtifactType = "application/vnd.example+json"
	files := map[string]Index{
		"docker.json": {2, dockerList, []Descriptor{
			child(dockerManifest, "a", 528, amd64), child(dockerManifest, "b", 529, arm64)}},
		"oci.json": {2, ociIndex, []Descriptor{
			child(ociManifest, "a", 1024, amd64), child(ociManifest, "b", 1025, arm64)}},
		"mixed.json": {2, ociIndex, []Descriptor{
			child(dockerManifest, "a", 528, amd64), child(ociManifest, "b", 1025, arm64)}},
		"attestations.json": {2, ociIndex, []Descriptor{
			child(ociManifest, "a", 1024, amd64), child(ociManifest, "b", 1025, arm64),
			attestation("d", 566, "a"), attestation("c", 567, "b")}},
		"arm.json": {2, dockerList, []Descriptor{
			child(dockerManifest, "c", 527, amd64),
			child(dockerManifest, "b", 529, &Platform{Architecture: "arm", OS: "linux", Variant: "v7"}),
			child(dockerManifest, "a", 528, &Platform{Architecture: "arm", OS: "linux", Variant: "v6"})}},
		"windows.json": {2, dockerList, []Descriptor{
			child(dockerManifest, "c", 1000, amd64),
			child(dockerManifest, "a", 1001, windows("10.0.20348.2655")),
			child(dockerManifest, "b", 1002, windows("10.0.17763.6189"))}},
		"annotations.json": {2, ociIndex, []Descriptor{child(ociManifest, "a", 1024, amd64), annotated}},
	}
	for name, index := range files {
		body, err := json.MarshalIndent(index, "", "  ")
		if err == nil {
			err = os.WriteFile(name, body, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
