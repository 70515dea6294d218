"""The online half: resolve a preset and fetch every byte. Never imported by the offline half."""
