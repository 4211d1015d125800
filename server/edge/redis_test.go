package edge

import (
	"strings"
	"testing"
)

func TestOpenRedis(t *testing.T) {
	t.Parallel()
	if c, err := OpenRedis("", "", RedisTimeout); c != nil || err != nil {
		t.Errorf("no url gives %v, %v", c, err)
	}
	_, err := OpenRedis("http://user:hunter2@localhost", "", RedisTimeout)
	if err == nil || len(err.Error()) > 200 || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a bad url gives %v", err)
	}
}
