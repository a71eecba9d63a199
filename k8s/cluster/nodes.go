package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	nodes, zones = 6, 3
	// Claims of broker, database and my-page, over all checks: kwok has no provisioner.
	volumes = 60
	// Where kwok answers for the kubelet of every node.
	kubeletPort = "10250"
	// What `kubectl logs` of a migration has.
	lastOfMigration = "checkup: migrate: relation \"slots\" is not what this version expects"
)

//go:embed stages.yaml
var stages []byte

// startNodes starts kwok and makes nodes and volumes.
func (c *Cluster) startNodes() error {
	log := filepath.Join(c.directory, "migration.log")
	if err := os.WriteFile(log, []byte("2026-11-30T12:00:00.000000000Z stderr F "+lastOfMigration+"\n"), 0o644); err != nil {
		return err
	}
	config := filepath.Join(c.directory, "stages.yaml")
	logs := fmt.Sprintf(`---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterLogs
metadata: {name: logs}
spec: {logs: [{logsFile: %s}]}
`, log)
	if err := os.WriteFile(config, append(stages, logs...), 0o644); err != nil {
		return err
	}
	if err := c.run("kwok", "--kubeconfig="+c.kubeconfig(), "--config="+config, "--manage-all-nodes=true", "--node-ip="+nodeAddress,
		"--node-port="+kubeletPort, "--server-address="+nodeAddress+":"+kubeletPort, "--cidr=10.244.0.0/16",
		"--tls-cert-file="+filepath.Join(c.directory, "keys/server.crt"), "--tls-private-key-file="+filepath.Join(c.directory, "keys/server.key")); err != nil {
		return err
	}
	room := object{"cpu": "16", "memory": "32Gi", "pods": "110"}
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		if err := c.call("POST", "/api/v1/nodes", object{
			"metadata": object{"name": name, "annotations": object{"kwok.x-k8s.io/node": "fake"}, "labels": object{
				"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
				"topology.kubernetes.io/region": "region", "topology.kubernetes.io/zone": fmt.Sprintf("zone-%d", i%zones)}},
			"status": object{"allocatable": room, "capacity": room},
		}, nil); err != nil {
			return err
		}
	}
	for i := range volumes {
		if err := c.call("POST", "/api/v1/persistentvolumes", object{
			"metadata": object{"name": fmt.Sprintf("volume-%d", i)},
			"spec": object{"capacity": object{"storage": "10Gi"}, "accessModes": []string{"ReadWriteOnce"}, "persistentVolumeReclaimPolicy": "Retain",
				"hostPath": object{"path": filepath.Join(c.directory, "volumes", fmt.Sprint(i))}},
		}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) nodesReady() error {
	all, err := c.list("/api/v1/nodes")
	if err != nil {
		return err
	}
	ready := 0
	for _, one := range all {
		if condition(one, "Ready") == "True" && items(one, "spec", "taints") == nil {
			ready++
		}
	}
	if ready != nodes {
		return errors.New(fmt.Sprint(ready, " nodes are ready"))
	}
	return nil
}
