package inspector

import (
	"testing"

	"github.com/typedrpc/typedrpc/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
