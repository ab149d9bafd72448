/* Stands for components/bootloader_support/include/bootloader_random.h (ESP-IDF 5.4). */
#pragma once

void bootloader_random_enable(void);
void bootloader_random_disable(void);
