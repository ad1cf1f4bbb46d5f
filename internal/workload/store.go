package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const jobSuffix = ".json"

// saveJob keeps a job: a file appears whole or not at all.
func saveJob(dir string, job Job) error {
	body, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("keeping the job: %w", err)
	}
	path := filepath.Join(dir, job.ID+jobSuffix)
	if err := os.WriteFile(path+".new", body, 0o600); err != nil {
		return fmt.Errorf("keeping the job: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keeping the job: %w", err)
	}
	return nil
}

func forgetJob(dir, id string) error {
	err := os.Remove(filepath.Join(dir, id+jobSuffix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// loadJobs reads every job of the folder.
func loadJobs(dir string) ([]Job, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	var jobs []Job
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), jobSuffix) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		body, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("jobs: %w", err)
		}
		var job Job
		if err := json.Unmarshal(body, &job); err != nil {
			return nil, fmt.Errorf("jobs: %s is damaged (%w); remove it when no process of that job lives", path, err)
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}
